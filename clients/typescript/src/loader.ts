import { Backoff } from './backoff.js';
import type { BugleError } from './errors.js';

/** Runs one load at a time. Runs it again if it was requested meanwhile, and with a backoff after a transient failure. */
export class Loader {
  #isRunning = false;
  #isAsked = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Counts stops. A load that began before a stop has no effect. */
  #generation = 0;
  #error: BugleError | undefined;
  readonly #backoff: Backoff;

  constructor(
    /** `isCurrent` returns `false` once the loader was stopped: the load must then change nothing. */
    private readonly load: (isCurrent: () => boolean) => Promise<void>,
    private readonly changed: () => void,
    retryDelay = 1_000,
  ) {
    this.#backoff = new Backoff(retryDelay, 30_000);
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** Why the last load failed. */
  get error(): BugleError | undefined {
    return this.#error;
  }

  /** Runs a load that begins after this call. */
  request(): void {
    this.#isAsked = true;
    if (!this.#isRunning) void this.#run();
  }

  stop(): void {
    this.#generation += 1;
    clearTimeout(this.#timer);
    this.#isAsked = false;
    this.#isRunning = false;
    this.#error = undefined;
    this.#backoff.reset();
  }

  async #run(): Promise<void> {
    const generation = this.#generation;
    const isCurrent = () => generation === this.#generation;
    clearTimeout(this.#timer);
    this.#isRunning = true;
    this.changed();
    while (this.#isAsked) {
      this.#isAsked = false;
      let error: BugleError | undefined;
      try {
        await this.load(isCurrent);
      } catch (cause) {
        error = cause as BugleError;
      }
      if (!isCurrent()) return;
      this.#error = error;
    }
    this.#isRunning = false;
    const failure = this.#error;
    if (!failure) this.#backoff.reset();
    else if (failure.isTransient) this.#timer = setTimeout(() => this.request(), Math.max(this.#backoff.next(), failure.retryAfter ?? 0));
    this.changed();
  }
}
