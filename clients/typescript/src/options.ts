import type { ManagerOptions, SocketOptions } from 'socket.io-client';

import type { MessageEvents } from './direct_message.js';
import type { BugleError } from './errors.js';
import type { RoomResumed } from './events.js';
import type { Message } from './message.js';
import type { PositionStorage } from './storage.js';
import type { Token } from './tokens.js';

/** Options of socket.io-client that are passed on as they are; the others are this package's own business. */
export type TransportOptions = Omit<
  Partial<ManagerOptions & SocketOptions>,
  | 'auth'
  | 'autoConnect'
  | 'forceNew'
  | 'multiplex'
  | 'path'
  | 'randomizationFactor'
  | 'reconnection'
  | 'reconnectionAttempts'
  | 'reconnectionDelay'
  | 'reconnectionDelayMax'
  | 'retries'
>;

export interface Options {
  /** Where Bugle's `clients.listen` is reached: an origin such as `https://app.example.com`, without a path. */
  url: string;

  /**
   * The user's JWT, or a function that gives one, also a promise of one. The function is asked for each attempt to connect, when the token
   * is about to expire, and for each request over REST; let it return what it has while that is good.
   */
  token: Token;

  /**
   * Is given every message, after the handlers of its event, but for the events named `bugle:*`. What it returns is the reply to a
   * backend that asked for an acknowledgement, if no handler of the event returned anything.
   */
  onMessage?: (message: Message) => unknown;

  /** After each catching up, and after each join of a room that keeps messages: how each room was caught up with. */
  onResumed?: (rooms: Record<string, RoomResumed>) => void;

  /**
   * Messages of this room were missed and could not be replayed: fetch the app's state anew. Without `resumed.position` the connection
   * is not in the room any more.
   */
  onGap?: (room: string, resumed: RoomResumed) => void;

  /**
   * What went wrong and does not show in `error` alone: a handler that threw, a storage or a REST request that failed, a token
   * function that failed before the token expired, and why the client stopped. Without it, such errors go to `console.error`.
   */
  onError?: (error: BugleError) => void;

  /** Keeps positions beyond the page or the process, such as `webStorage(sessionStorage, 'bugle:42')`. Without it: in memory. */
  storage?: PositionStorage;

  /** The server's `socketio.path`. Default `/socket.io`. */
  path?: string;

  /** The delay before the second attempt to connect, in milliseconds; it doubles with each failure. Default 500. */
  retryDelay?: number;

  /** The longest delay between two attempts, in milliseconds. Each delay is by chance between half of it and all. Default 30,000. */
  retryDelayMax?: number;

  /**
   * How long there must be no connection until retained values are asked for over REST, in milliseconds; `false` for never.
   * Default 10,000.
   */
  restAfter?: number | false;

  /** How often they are asked for from then on, in milliseconds; by chance down to half of it. Default 30,000. */
  restInterval?: number;

  /** The server's `rest.path`. Default `/bugle`. */
  restPath?: string;

  /** The server's `messages.path`. Default `/bugle/messages`. */
  messagesPath?: string;

  /** Names of the events of direct messages, where the server's `[messages]` has others than Bugle's own. */
  messageEvents?: Partial<MessageEvents>;

  /** For socket.io-client, such as `{ transports: ['websocket'] }`. */
  socketOptions?: TransportOptions;
}
