export { Client, connect } from './client.js';
export type { ConnectionState } from './connection.js';
export { Conversation, type ConversationOptions, type ConversationState } from './conversation.js';
export { Conversations, type ConversationsOptions, type ConversationsState } from './conversations.js';
export type {
  ConversationMessage,
  ConversationSummary,
  DirectMessage,
  MessageEvents,
  MessageTopic,
  PendingMessage,
} from './direct_message.js';
export { DirectMessages, type MessageChange, type MessageTransport, type PageOptions } from './direct_messages.js';
export { BugleError } from './errors.js';
export type { AnyEvents, BugleEvents, Listenable, RoomResumed, Welcome } from './events.js';
export type { Handler } from './handlers.js';
export type { Message } from './message.js';
export type { Options, TransportOptions } from './options.js';
export { type PositionMap, type PositionStorage, webStorage } from './storage.js';
export type { HttpMethod } from './rest.js';
export type { Token } from './tokens.js';
