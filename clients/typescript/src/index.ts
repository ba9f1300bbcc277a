export { Client, connect } from './client.js';
export type { ConnectionState } from './connection.js';
export { BugleError } from './errors.js';
export type { AnyEvents, BugleEvents, Listenable, RoomResumed, Welcome } from './events.js';
export type { Handler } from './handlers.js';
export type { Message } from './message.js';
export type { Options, TransportOptions } from './options.js';
export { type PositionMap, type PositionStorage, webStorage } from './storage.js';
export type { Token } from './tokens.js';
