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
  /** A time such as `2026-01-31T09:30:00.000Z`. It increases strictly within a conversation. */
  createdAt: string;
  updatedAt: string;
}

/** A conversation in the list of them. */
export interface ConversationSummary {
  /** The other user. */
  userId: string;
  lastMessage: DirectMessage;
  /** How many messages of the other user are not read. */
  unreadCount: number;
}

/** What a message is about. */
export interface MessageTopic {
  transactionId?: string;
  listingId?: string;
}

/** A message of this client that Bugle has not confirmed. */
export interface PendingMessage {
  readonly clientMessageId: string;
  readonly receiverId: string;
  readonly content: string;
  readonly topic: MessageTopic;
  /** When it was written, by this device's clock. */
  readonly createdAt: string;
  readonly status: 'sending' | 'failed';
  /** Why it has failed. */
  readonly error: BugleError | undefined;
  /** An attempt had no answer: Bugle may have stored the message. */
  readonly isUncertain: boolean;
}

/** A message in a conversation, confirmed or not. */
export interface ConversationMessage {
  /** Identifies the message in this conversation, also while it becomes confirmed: for keys of lists, `retry` and `remove`. */
  readonly key: string;
  /** `undefined` until the message is confirmed. */
  readonly id: string | undefined;
  /** Written by this user, not by the other one. */
  readonly isOwn: boolean;
  readonly content: string;
  readonly transactionId: string | null;
  readonly listingId: string | null;
  /** Whether the receiver has read it. */
  readonly isRead: boolean;
  readonly createdAt: string;
  /** `sending`: not confirmed yet, also while there is no connection. `failed`: `error` says why; `retry` sends it again. */
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

/** The other user of a message's conversation, for the user with this id. */
export function peerOf({ senderId, receiverId }: DirectMessage, own: string): string {
  return senderId === own ? receiverId : senderId;
}
