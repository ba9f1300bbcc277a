import type { Message } from './message.js';

/** Takes a message. What it returns, or the promise resolves with, is the reply to a backend that asked for an acknowledgement. */
export type Handler<Payload = unknown> = (payload: Payload, message: Message<Payload>) => unknown;

/** Who listens to which event. */
export class Handlers {
  readonly #byEvent = new Map<string, Set<{ handler: Handler }>>();

  /** `onMessage` takes every message, after the handlers of its event. */
  constructor(private readonly onMessage: ((message: Message) => unknown) | undefined) {}

  /** Adds a handler, also one that is there already; the function that is returned takes it out again. */
  add(event: string, handler: Handler): () => void {
    const entry = { handler };
    const entries = this.#byEvent.get(event) ?? new Set();
    this.#byEvent.set(event, entries.add(entry));
    return () => {
      entries.delete(entry);
      if (entries.size === 0 && this.#byEvent.get(event) === entries) this.#byEvent.delete(event);
    };
  }

  /** Calls, at once, everyone who listens; what became of each call. Nobody: an empty list. */
  hand(message: Message, toEveryone = true): Promise<unknown>[] {
    const calls = [...(this.#byEvent.get(message.event) ?? [])].map(
      ({ handler }) => attempted(() => handler(message.payload, message)),
    );
    const { onMessage } = this;
    if (onMessage && toEveryone) calls.push(attempted(() => onMessage(message)));
    return calls;
  }
}

/** Calls at once, and has what is thrown as a rejection. */
export function attempted(call: () => unknown): Promise<unknown> {
  try {
    return Promise.resolve(call());
  } catch (cause) {
    return Promise.reject(cause);
  }
}
