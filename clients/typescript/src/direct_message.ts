import type { BugleError } from './errors.js';

/** A direct message, as Bugle stores and sends it. */
export interface DirectMessage {
  id: string;
  senderId: string;
  receiverId: string;
  content: string;
  transactionId: string | null;
  listingId: string | null;
  isRead: boolean;
  /** A time such as `2026-01-31T09:30:00.000Z`. Strictly increasing within a conversation. */
  createdAt: string;
  updatedAt: string;
}

/** A conversation as listed. */
export interface ConversationSummary {
  /** The other user. */
  userId: string;
  lastMessage: DirectMessage;
  /** The number of unread messages of the other user. */
  unreadCount: number;
}

/** The transaction or listing that a message is about. */
export interface MessageTopic {
  transactionId?: string;
  listingId?: string;
}

/** An unconfirmed message of this client. */
export interface PendingMessage {
  readonly clientMessageId: string;
  readonly receiverId: string;
  readonly content: string;
  readonly topic: MessageTopic;
  /** The time of writing by this device's clock. */
  readonly createdAt: string;
  readonly status: 'sending' | 'failed';
  /** Why it failed. */
  readonly error: BugleError | undefined;
  /** An attempt got no answer: Bugle may have stored the message. */
  readonly isUncertain: boolean;
}

/** A message in a conversation, confirmed or not. */
export interface ConversationMessage {
  /** Identifies the message in this conversation, before and after its confirmation. For list keys, `retry` and `remove`. */
  readonly key: string;
  /** `undefined` until the message is confirmed. */
  readonly id: string | undefined;
  /** Whether this user has written it. */
  readonly isOwn: boolean;
  readonly content: string;
  readonly transactionId: string | null;
  readonly listingId: string | null;
  /** Whether the receiver has read it. */
  readonly isRead: boolean;
  readonly createdAt: string;
  /** `sending`: not confirmed, also without a connection. `failed`: `error` says why, and `retry` sends it again. */
  readonly status: 'sending' | 'sent' | 'failed';
  readonly error: BugleError | undefined;
}

/** Names of events, as in the server's `[messages]`. */
export interface MessageEvents {
  send: string;
  received: string;
  read: string;
  delete: string;
  deleted: string;
  block: string;
  typingStart: string;
  typingStop: string;
}

export const MESSAGE_EVENTS: MessageEvents = {
  send: 'message:send',
  received: 'message:received',
  read: 'message:read',
  delete: 'message:delete',
  deleted: 'message:deleted',
  block: 'message:block',
  typingStart: 'typing:start',
  typingStop: 'typing:stop',
};
