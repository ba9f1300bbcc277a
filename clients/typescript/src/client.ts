import { io, type Socket } from 'socket.io-client';

import { Backoff } from './backoff.js';
import { ask, Connection, type ConnectionState } from './connection.js';
import { DirectMessages, type MessageTransport } from './direct_messages.js';
import { BugleError, reportTo } from './errors.js';
import type { AnyEvents, BugleEvents, Listenable } from './events.js';
import { attempted, type Handler, Handlers } from './handlers.js';
import { type Received, received } from './message.js';
import type { Options } from './options.js';
import { Positions } from './positions.js';
import { RecentIds } from './recent_ids.js';
import { type HttpMethod, Rest } from './rest.js';
import { RetainedOverRest } from './retained.js';
import { Tokens } from './tokens.js';

/** How many ids of kept messages are remembered, to drop what comes twice. */
const REMEMBERED_IDS = 10_000;

/** One connection of one user to Bugle, which comes back until it is closed. It does nothing before `open`. */
export class Client<Events extends object = AnyEvents> {
  /** The socket itself, for what this class does not offer. Do not connect or disconnect it. */
  readonly socket: Socket;
  readonly #connection: Connection;
  readonly #positions: Positions;
  readonly #handlers: Handlers;
  readonly #seen = new RecentIds(REMEMBERED_IDS);
  readonly #rest: Rest;
  readonly #retained: RetainedOverRest | undefined;
  #messages: DirectMessages | undefined;
  /** Counts connections, so that no reply goes out on a later one, where its number may be another message's. */
  #connections = 0;

  constructor(private readonly options: Options) {
    // Socket.IO would take a path for a namespace, and Bugle has none but the main one.
    if (new URL(options.url).pathname !== '/') throw new TypeError(`url must be an origin, without a path: ${options.url}`);
    const { url, path = '/socket.io', socketOptions, retryDelay = 500, retryDelayMax = 30_000 } = options;
    this.socket = io(url, { ...socketOptions, path, autoConnect: false, forceNew: true, reconnection: false });
    this.#handlers = new Handlers(options.onMessage);
    this.#positions = new Positions(options.storage, (cause) =>
      this.#report(new BugleError('storage', 'positions could not be read or written', { cause })),
    );
    const tokens = new Tokens(options.token);
    this.#rest = new Rest(url, tokens);
    this.#retained = this.#retainedOverRest();
    this.#connection = new Connection(
      this.socket,
      tokens,
      new Backoff(retryDelay, retryDelayMax),
      new Backoff(retryDelay, retryDelayMax),
      async () => {
        await this.#positions.load();
        return this.#positions.resume();
      },
      (error) => this.#report(error),
    );
    this.#connection.subscribe((state) => this.#changed(state));
    this.socket.onAny((event: string, ...args: unknown[]) => this.#take(received(event, args)));
  }

  /** Connects, and comes back whenever the connection is lost. Also after `close`. */
  open(): void {
    this.#connection.open();
    this.#retained?.begin();
  }

  /** Disconnects and stays away. Handlers and positions stay for another `open`. */
  close(): void {
    this.#connection.close();
    this.#retained?.end();
  }

  /** Tries to connect at once, where it waits for its next attempt or has stopped; else it does nothing. */
  reconnect(): void {
    this.#connection.again();
  }

  get isConnected(): boolean {
    return this.#connection.state.isConnected;
  }

  /** Why there is no connection; `undefined` while there is one. */
  get error(): BugleError | undefined {
    return this.#connection.state.error;
  }

  /**
   * The client does not come back by itself: a backend disconnected the user, or the token was refused and there is no other one.
   * `error` says which; `updateToken` and `reconnect` try again.
   */
  get isStopped(): boolean {
    return this.#connection.state.isStopped;
  }

  /** The three above, as an object that is replaced when one of them changes. */
  get state(): ConnectionState {
    return this.#connection.state;
  }

  /** Calls the listener whenever the state has changed; the function that is returned ends that. */
  subscribe(listener: (state: ConnectionState) => void): () => void {
    return this.#connection.subscribe(listener);
  }

  /**
   * Calls the handler with each payload of an event; the function that is returned ends that. What the handler returns, or the promise
   * that it returns resolves with, is the reply to a backend that asked for an acknowledgement. A handler that throws, or rejects, gives
   * none.
   */
  on<Event extends keyof Listenable<Events> & string>(event: Event, handler: Handler<Listenable<Events>[Event]>): () => void {
    return this.#handlers.add(event, handler as Handler);
  }

  /**
   * Sends a client event, and resolves with Bugle's answer. Rejects with a `BugleError`: with Bugle's code for a refused event, with
   * `no_answer` after `timeout` milliseconds (10,000). What is sent without a connection waits for one within that time.
   */
  send(event: string, payload?: unknown, { timeout }: { timeout?: number } = {}): Promise<unknown> {
    return ask(this.socket, event, payload, timeout);
  }

  /**
   * Sends a request over REST with the token, to a path such as `/bugle/notifications`, and resolves with the JSON of the answer,
   * `undefined` if it has none. Rejects with a `BugleError`: with Bugle's code for a refusal, with `transport` if there was no answer
   * within 10 s.
   */
  request(method: HttpMethod, path: string, body?: unknown): Promise<unknown> {
    return this.#rest.request(method, path, body);
  }

  /** The user's direct messages: for `Conversation` and `Conversations`. */
  get messages(): DirectMessages {
    this.#messages ??= new DirectMessages(this as unknown as MessageTransport, this.options.messagesPath, this.options.messageEvents);
    return this.#messages;
  }

  /**
   * Uses another token of the same user: on the live connection, else in an attempt at once. Where the token option is a text, this one
   * replaces it; a function is still asked for later attempts. Rejects with a `BugleError` when Bugle refuses it (`invalid_token`,
   * `wrong_user`), and the connection stays as it is.
   */
  updateToken(token: string): Promise<void> {
    return this.#connection.updateToken(token);
  }

  /**
   * To be called when the app has left a room by a client event: else the next connection would join it again to catch up. Without a
   * room: forgets where all of them stand.
   */
  forget(room?: string): void {
    this.#positions.forget(room);
  }

  #retainedOverRest(): RetainedOverRest | undefined {
    const { restAfter = 10_000, restInterval = 30_000, restPath = '/bugle' } = this.options;
    if (restAfter === false) return undefined;
    return new RetainedOverRest(
      `${restPath}/retained`,
      this.#rest,
      restAfter,
      new Backoff(restInterval, restInterval),
      (message) => void this.#settle(this.#handlers.hand(message)),
      (error) => this.#report(error),
    );
  }

  #changed({ isConnected, isStopped }: ConnectionState): void {
    if (isConnected) this.#connections += 1;
    if (isConnected || isStopped) this.#retained?.end();
    else this.#retained?.begin();
  }

  #take({ message, meta, acknowledge }: Received): void {
    if (message.event.startsWith('bugle:')) {
      this.#handlers.hand(message, false).forEach((call) => void this.#settle([call]));
      if (message.event === 'bugle:resumed') this.#resumed(message.payload as BugleEvents['bugle:resumed']);
      return;
    }
    if (meta && !this.#seen.add(meta.id)) {
      this.#positions.handed(meta.room, meta.position);
      acknowledge?.();
      return;
    }
    const calls = this.#handlers.hand(message);
    if (meta) this.#positions.handed(meta.room, meta.position);
    void this.#reply(calls, acknowledge);
  }

  async #reply(calls: Promise<unknown>[], acknowledge: Received['acknowledge']): Promise<void> {
    const connection = this.#connections;
    const replies = await this.#settle(calls);
    // A message that nobody took, or that somebody failed to take, is not acknowledged.
    if (!acknowledge || calls.length === 0 || replies.length < calls.length) return;
    if (connection !== this.#connections || !this.isConnected) return;
    const reply = replies.find((value) => value !== undefined);
    if (reply === undefined) acknowledge();
    else acknowledge(reply);
  }

  /** What the calls that succeeded returned; the failures are reported. */
  async #settle(calls: Promise<unknown>[]): Promise<unknown[]> {
    const results = await Promise.allSettled(calls);
    return results.flatMap((result) => {
      if (result.status === 'fulfilled') return [result.value];
      this.#report(new BugleError('handler', 'a handler failed', { cause: result.reason }));
      return [];
    });
  }

  #resumed({ rooms }: BugleEvents['bugle:resumed']): void {
    for (const [room, resumed] of Object.entries(rooms)) this.#positions.resumed(room, resumed);
    const calls = [attempted(() => this.options.onResumed?.(rooms))];
    for (const [room, resumed] of Object.entries(rooms)) {
      if (!resumed.recovered) calls.push(attempted(() => this.options.onGap?.(room, resumed)));
    }
    void this.#settle(calls);
  }

  #report(error: BugleError): void {
    reportTo(this.options.onError, error);
  }
}

/** Connects to Bugle: a `Client` that is open. Handlers that are added right after get the first message too. */
export function connect<Events extends object = AnyEvents>(options: Options): Client<Events> {
  const client = new Client<Events>(options);
  client.open();
  return client;
}
