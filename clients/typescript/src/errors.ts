const TRANSIENT = new Set(['transport', 'token', 'no_answer', 'rate', 'resource_exhausted', 'unavailable', 'deadline_exceeded', 'internal']);

/**
 * What went wrong, for programs by `code` and for people by `message`.
 *
 * Codes of this package: `transport` (no connection, or it was lost; the client comes back by itself), `token` (the token function
 * failed; it is asked again), `token_refused` (Bugle refused the token, and there is no other one; the client has stopped),
 * `no_answer` (Bugle did not answer a sent event in time), `handler` (a handler threw or rejected), `storage` (the positions could not
 * be read or written), `retained` (retained values could not be had over REST), `queue_full` (1,000 direct messages are not sent yet),
 * `http_STATUS` (an answer over REST that is not Bugle's, such as a proxy's `http_502`). All other codes are Bugle's own: those of
 * `bugle:disconnect` (`disconnected`, `expired`, `slow`, …), of refused client events and of REST (`forbidden`, `rate`, `unavailable`, …).
 */
export class BugleError extends Error {
  override readonly name = 'BugleError';
  /** When Bugle says to try again, in milliseconds from now. */
  readonly retryAfter: number | undefined;

  constructor(
    readonly code: string,
    message: string,
    { retryAfter, ...options }: { cause?: unknown; retryAfter?: number } = {},
  ) {
    super(message, options);
    this.retryAfter = retryAfter;
  }

  /** Whether the same may succeed later: there was no answer, or Bugle or a proxy could not give one now. */
  get isTransient(): boolean {
    return TRANSIENT.has(this.code) || /^http_5/.test(this.code);
  }
}

/** Gives an error to whoever wants to know; else it is at least seen. */
export function reportTo(onError: ((error: BugleError) => void) | undefined, error: BugleError): void {
  if (onError) onError(error);
  else console.error(error);
}
