import type { Socket } from 'socket.io-client';

import { Backoff } from './backoff.js';
import { BugleError } from './errors.js';
import type { BugleEvents } from './events.js';
import type { PositionMap } from './storage.js';
import type { Tokens } from './tokens.js';

/** What an app shows of a connection. A new object whenever it changes. */
export interface ConnectionState {
  readonly isConnected: boolean;
  /** Why there is no connection; `undefined` while there is one, and before the first attempt has failed. */
  readonly error: BugleError | undefined;
  /** `true`: the client does not come back by itself. */
  readonly isStopped: boolean;
}

const REFUSED = new Set(['Invalid or expired token', 'Authentication token required']);
/** A connection that lasted so long, in milliseconds, was a good one even if Bugle ended it: the next loss begins with the shortest delay. */
const LASTING = 5_000;
/** How long Bugle may take to answer, in milliseconds. */
export const ANSWER_TIMEOUT = 10_000;

type Phase = 'closed' | 'waiting' | 'opening' | 'connected' | 'stopped';

/** Opens the socket, and opens it again for as long as that makes sense. */
export class Connection {
  #phase: Phase = 'closed';
  #state: ConnectionState = { isConnected: false, error: undefined, isStopped: false };
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  /** Counts attempts, so that what an earlier one awaited changes nothing any more. */
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  /** The token of the last attempt, or that replaced it. */
  #token: string | undefined;
  #refused: string | undefined;
  #connectedAt = 0;
  #caughtUp = false;
  /** What Bugle said before it closed the connection. */
  #farewell: BugleEvents['bugle:disconnect'] | undefined;

  constructor(
    private readonly socket: Socket,
    private readonly tokens: Tokens,
    private readonly backoff: Backoff,
    private readonly renewalBackoff: Backoff,
    /** What is to be resumed, asked after the token has come. */
    private readonly resume: () => Promise<PositionMap>,
    private readonly report: (error: BugleError) => void,
  ) {
    socket.on('connect', () => this.#connected());
    socket.on('connect_error', (error) => this.#notConnected(error));
    socket.on('disconnect', (reason) => this.#disconnected(reason));
    socket.on('bugle:resumed', () => (this.#caughtUp = true));
    socket.on('bugle:disconnect', (farewell) => (this.#farewell = farewell));
    socket.on('bugle:token_expiring', () => void this.#renew());
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Calls the listener whenever the state has changed; the function that is returned ends that. */
  subscribe(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Begins, unless it has begun. */
  open(): void {
    if (this.#phase === 'closed') this.#begin();
  }

  /** Tries at once, where it waits for its next attempt or has stopped. */
  again(): void {
    if (this.#phase === 'waiting' || this.#phase === 'stopped') this.#begin();
  }

  close(): void {
    this.#enter('closed', undefined);
    this.socket.disconnect();
  }

  /** Uses another token from now on: on the live connection, else in the next attempt, which is made at once. */
  async updateToken(token: string): Promise<void> {
    this.tokens.give(token);
    if (this.#phase === 'connected') await this.#refresh();
    else this.again();
  }

  #begin(): void {
    this.#refused = undefined;
    this.backoff.reset();
    void this.#open();
  }

  async #open(): Promise<void> {
    this.#enter('opening', this.#state.error);
    const attempt = this.#attempt;
    let token: string;
    try {
      token = await this.tokens.next();
    } catch (cause) {
      if (attempt === this.#attempt) this.#retry(tokenFailed(cause));
      return;
    }
    const resume = await this.resume();
    if (attempt !== this.#attempt) return;
    this.#token = token;
    if (token === this.#refused) {
      this.#stop(new BugleError('token_refused', 'Bugle refused the token, and there is no other one'));
      return;
    }
    this.#farewell = undefined;
    this.socket.auth = { token, resume };
    this.socket.connect();
  }

  #connected(): void {
    this.#refused = undefined;
    this.#connectedAt = Date.now();
    this.#caughtUp = false;
    this.#enter('connected', undefined);
    // Somebody may have updated the token while the attempt was under way.
    this.#refresh().catch((error: BugleError) => this.report(error));
  }

  #notConnected(error: Error): void {
    if (this.#phase !== 'opening') return;
    if (REFUSED.has(error.message)) {
      this.#refused = this.#token;
      this.#retry(new BugleError('token_refused', error.message));
    } else {
      this.#retry(new BugleError('transport', error.message, { cause: error }));
    }
  }

  #disconnected(reason: string): void {
    if (this.#phase !== 'opening' && this.#phase !== 'connected') return;
    const farewell = this.#farewell;
    if (this.#phase === 'connected' && this.#wasGood()) this.backoff.reset();
    // The farewell is not sent to a device whose queue is full. That Bugle left the namespace says the same.
    if (farewell ? !farewell.retry : reason === 'io server disconnect') {
      this.#stop(new BugleError(farewell?.code ?? 'disconnected', farewell?.reason || 'Bugle closed the connection'));
    } else {
      this.#retry(farewell ? new BugleError(farewell.code, farewell.reason) : new BugleError('transport', `connection lost: ${reason}`));
    }
  }

  /** One that Bugle ended was not, even if it had caught up: who is closed as slow after each catching up must not come back ever as fast. */
  #wasGood(): boolean {
    return (this.#caughtUp && !this.#farewell) || Date.now() - this.#connectedAt >= LASTING;
  }

  #retry(error: BugleError): void {
    this.#enter('waiting', error);
    this.#timer = setTimeout(() => void this.#open(), this.backoff.next());
  }

  #stop(error: BugleError): void {
    this.#enter('stopped', error);
    this.report(error);
  }

  #enter(phase: Phase, error: BugleError | undefined): void {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    this.#phase = phase;
    const next = { isConnected: phase === 'connected', error, isStopped: phase === 'stopped' };
    const last = this.#state;
    if (next.isConnected === last.isConnected && next.isStopped === last.isStopped && next.error === last.error) return;
    this.#state = next;
    for (const listener of [...this.#listeners]) {
      try {
        listener(next);
      } catch (cause) {
        this.report(new BugleError('handler', 'a listener to the state failed', { cause }));
      }
    }
  }

  /** Asks for a fresh token, again and again until there is one, and has Bugle use it. */
  async #renew(): Promise<void> {
    if (!this.tokens.canBeAsked) return;
    const attempt = this.#attempt;
    try {
      const token = await this.tokens.next();
      if (attempt !== this.#attempt) return;
      this.tokens.give(token);
    } catch (cause) {
      if (attempt !== this.#attempt) return;
      this.report(tokenFailed(cause));
    }
    try {
      if (await this.#refresh()) return this.renewalBackoff.reset();
    } catch (error) {
      this.report(error as BugleError);
      return;
    }
    this.#renewal = setTimeout(() => void this.#renew(), this.renewalBackoff.next());
  }

  /** Sends a token that was given and is not the one in use; whether there was one. */
  async #refresh(): Promise<boolean> {
    const token = this.tokens.givenBeside(this.#token);
    if (token === undefined) return false;
    try {
      await ask(this.socket, 'bugle:refresh', { token });
    } catch (error) {
      const unanswered = error instanceof BugleError && error.code === 'no_answer';
      if (!unanswered && this.#token !== undefined) this.tokens.withdraw(token, this.#token);
      throw error;
    }
    this.#token = token;
    return true;
  }
}

/** Sends a client event, and has Bugle's answer; a refusal is thrown. */
export async function ask(socket: Socket, event: string, payload: unknown, timeout = ANSWER_TIMEOUT): Promise<unknown> {
  let answer: unknown;
  try {
    answer = await socket.timeout(timeout).emitWithAck(event, payload);
  } catch (cause) {
    throw new BugleError('no_answer', `Bugle did not answer ${event}`, { cause });
  }
  const { error } = (answer ?? {}) as { error?: { code: string; message: string; retryAfterMs?: number } };
  if (error) {
    const { code, message, retryAfterMs } = error;
    throw new BugleError(code, message, retryAfterMs === undefined ? {} : { retryAfter: retryAfterMs });
  }
  return answer;
}

function tokenFailed(cause: unknown): BugleError {
  return new BugleError('token', 'the token function failed', { cause });
}
