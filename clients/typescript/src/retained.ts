import type { Backoff } from './backoff.js';
import { BugleError } from './errors.js';
import type { Message } from './message.js';
import type { Rest } from './rest.js';

interface Entry {
  room: string;
  event: string;
  payload?: unknown;
  binary: boolean;
}

/** Asks over REST for what is retained, while the socket cannot be opened. */
export class RetainedOverRest {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #request: AbortController | undefined;
  /** What was handed last, as JSON, by room and event: an unchanged value is not handed again. */
  readonly #handed = new Map<string, string>();

  constructor(
    private readonly path: string,
    private readonly rest: Rest,
    /** The time without a connection before the first request, in milliseconds. */
    private readonly after: number,
    private readonly pace: Backoff,
    private readonly hand: (message: Message) => void,
    private readonly report: (error: BugleError) => void,
  ) {}

  /** There is no connection, and one is wanted. */
  begin(): void {
    this.#timer ??= setTimeout(() => void this.#ask(), this.after);
  }

  /** There is a connection, or none is wanted. What is still under way is not handed: the socket brings what is newer. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#request?.abort();
    this.#request = undefined;
    this.#handed.clear();
    this.pace.reset();
  }

  async #ask(): Promise<void> {
    const request = new AbortController();
    this.#request = request;
    try {
      const entries = await this.#retained(request.signal);
      if (request.signal.aborted) return;
      for (const entry of entries) this.#handIfNew(entry);
    } catch (cause) {
      if (request.signal.aborted) return;
      this.report(cause instanceof BugleError ? cause : new BugleError('retained', 'retained values could not be had over REST', { cause }));
    }
    // A handler may have closed the client.
    if (request.signal.aborted) return;
    this.#timer = setTimeout(() => void this.#ask(), this.pace.next());
  }

  async #retained(signal: AbortSignal): Promise<Entry[]> {
    const answer = await this.rest.fetch(this.path, { signal });
    if (!answer.ok) throw new BugleError('retained', `${this.path} answered ${answer.status}`);
    const { retained } = (await answer.json()) as { retained: Entry[] };
    return retained;
  }

  #handIfNew({ room, event, payload, binary }: Entry): void {
    if (binary) return;
    const key = JSON.stringify([room, event]);
    const value = JSON.stringify(payload) ?? '';
    if (this.#handed.get(key) === value) return;
    this.#handed.set(key, value);
    this.hand({ event, payload, room, source: 'rest' });
  }
}
