import { Backoff } from './backoff.js';
import type { BugleError } from './errors.js';

/** Runs a load one at a time, once more if that was asked for meanwhile, and later if it has failed for a reason that may be over. */
export class Loader {
  #isRunning = false;
  #isAsked = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Counts stops: a load from before one changes nothing. */
  #generation = 0;
  #error: BugleError | undefined;
  readonly #backoff: Backoff;

  constructor(
    /** `isCurrent`: whether what was loaded is still wanted. */
    private readonly load: (isCurrent: () => boolean) => Promise<void>,
    private readonly changed: () => void,
    retryDelay = 1_000,
  ) {
    this.#backoff = new Backoff(retryDelay, 30_000);
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** Why the last load has failed. */
  get error(): BugleError | undefined {
    return this.#error;
  }

  /** Loads; what changes after the call is in the outcome of the load that the call brings about. */
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
