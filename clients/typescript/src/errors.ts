/**
 * What went wrong, for programs by `code` and for people by `message`.
 *
 * Codes of this package: `transport` (no connection, or it was lost; the client comes back by itself), `token` (the token function
 * failed; it is asked again), `token_refused` (Bugle refused the token, and there is no other one; the client has stopped),
 * `no_answer` (Bugle did not answer a sent event in time), `handler` (a handler threw or rejected), `storage` (the positions could not
 * be read or written), `retained` (retained values could not be had over REST). All other codes are Bugle's own: those of
 * `bugle:disconnect` (`disconnected`, `expired`, `slow`, …) and of refused client events (`forbidden`, `rate`, …).
 */
export class BugleError extends Error {
  override readonly name = 'BugleError';

  constructor(
    readonly code: string,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** Gives an error to whoever wants to know; else it is at least seen. */
export function reportTo(onError: ((error: BugleError) => void) | undefined, error: BugleError): void {
  if (onError) onError(error);
  else console.error(error);
}
