import type { ConnectionState } from './connection.js';
import { type ConversationSummary, type DirectMessage, MESSAGE_EVENTS, type MessageEvents, type PendingMessage } from './direct_message.js';
import type { BugleError } from './errors.js';
import type { Welcome } from './events.js';
import { Outbox } from './outbox.js';
import type { HttpMethod } from './rest.js';

/** The maximum number of entries in an answer of Bugle. */
export const MAX_PAGE = 100;

/** What direct messages need of a client. */
export interface MessageTransport {
  readonly state: ConnectionState;
  subscribe(listener: (state: ConnectionState) => void): () => void;
  on(event: string, handler: (payload: any) => unknown): () => void;
  send(event: string, payload?: unknown): Promise<unknown>;
  request(method: HttpMethod, path: string, body?: unknown): Promise<unknown>;
}

/** A change, made by this client or reported by Bugle. */
export type MessageChange =
  /** A received message, or a confirmed one of this client, which has its `clientMessageId`. */
  | { kind: 'message'; message: DirectMessage; clientMessageId?: string }
  /** Messages that one of the two users has read on another device. */
  | { kind: 'read'; messageIds: readonly string[]; readerId: string }
  /** A conversation that this client has marked as read, at least up to this time. */
  | { kind: 'readHere'; userId: string; upTo: string }
  | { kind: 'deleted'; messageId: string }
  | { kind: 'typing'; userId: string; isTyping: boolean }
  /** A change of the unconfirmed messages to this user. */
  | { kind: 'pending'; userId: string }
  /** Another user is logged in: all loaded state is invalid. */
  | { kind: 'reset' };

export interface PageOptions {
  /** The maximum number of entries, at most 100. Default 50. */
  limit?: number;
  /** The id of the last message of the page before. */
  before?: string;
}

/** Direct messages of the client's user: Bugle's events and REST routes for them, and the outbox. */
export class DirectMessages {
  readonly outbox: Outbox;
  readonly #events: MessageEvents;
  readonly #listeners = new Set<(change: MessageChange) => void>();
  #userId: string | undefined;
  /** Whether the first event of this connection has arrived. Before it, the connection's user may be another one than the outbox's. */
  #isReady = false;

  constructor(
    private readonly transport: MessageTransport,
    private readonly path = '/bugle/messages',
    events: Partial<MessageEvents> = {},
  ) {
    this.#events = { ...MESSAGE_EVENTS, ...events };
    this.outbox = new Outbox({
      isConnected: () => this.#isReady,
      send: (message) => this.#send(message),
      sent: (message, clientMessageId) => this.#tell({ kind: 'message', message, clientMessageId }),
      changed: (userId) => this.#tell({ kind: 'pending', userId }),
    });
    this.#listen();
  }

  get isConnected(): boolean {
    return this.transport.state.isConnected;
  }

  get connection(): ConnectionState {
    return this.transport.state;
  }

  /** Calls the listener whenever the connection's state has changed; the function that is returned ends that. */
  onConnection(listener: (state: ConnectionState) => void): () => void {
    return this.transport.subscribe(listener);
  }

  /** Calls the listener with each change; the function that is returned ends that. */
  subscribe(listener: (change: MessageChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Drops unsent messages and all loaded state. Call it when another user logs in. */
  reset(): void {
    this.outbox.clear();
    this.#userId = undefined;
    this.#tell({ kind: 'reset' });
  }

  /** Fetches a page of conversations, newest first. */
  async conversations(page: PageOptions = {}): Promise<ConversationSummary[]> {
    return (await this.transport.request('GET', `${this.path}/conversations${query(page)}`)) as ConversationSummary[];
  }

  /** Fetches a page of the messages with a user, newest first. */
  async conversation(userId: string, page: PageOptions = {}): Promise<DirectMessage[]> {
    const path = `${this.path}/conversation/${encodeURIComponent(userId)}${query(page)}`;
    return (await this.transport.request('GET', path)) as DirectMessage[];
  }

  /** Fetches the number of unread messages. */
  async unreadCount(): Promise<number> {
    const { count } = (await this.transport.request('GET', `${this.path}/unread-count`)) as { count: number };
    return count;
  }

  /** Marks all messages of another user as read. `upTo`: the `createdAt` of the newest message that the client has. */
  async markRead(userId: string, upTo: string): Promise<void> {
    await this.transport.send(this.#events.read, { userId });
    this.#tell({ kind: 'readHere', userId, upTo });
  }

  /** Deletes a message of this user for both users. */
  async delete(messageId: string): Promise<void> {
    await this.transport.send(this.#events.delete, { messageId });
    this.#tell({ kind: 'deleted', messageId });
  }

  /** Blocks or unblocks another user. Bugle refuses messages of a blocked user. */
  async block(userId: string, blocked = true): Promise<void> {
    await this.transport.send(this.#events.block, { userId, blocked });
  }

  /** Tells another user that this one is typing or has stopped. Does nothing without a connection; ignores refusals. */
  typing(userId: string, isTyping: boolean): void {
    if (!this.isConnected) return;
    const { typingStart, typingStop } = this.#events;
    this.transport.send(isTyping ? typingStart : typingStop, userId).catch(() => {});
  }

  async #send({ receiverId, content, topic, clientMessageId }: PendingMessage): Promise<DirectMessage> {
    const payload = { receiverId, message: content, ...topic, clientMessageId };
    const { message } = (await this.transport.send(this.#events.send, payload)) as { message: DirectMessage };
    return message;
  }

  #listen(): void {
    const { transport } = this;
    const { received, read, deleted, typingStart, typingStop } = this.#events;
    transport.on(received, (message: DirectMessage) => this.#tell({ kind: 'message', message }));
    transport.on(read, ({ messageIds, readerId }: { messageIds: string[]; readerId: string }) =>
      this.#tell({ kind: 'read', messageIds, readerId }),
    );
    transport.on(deleted, ({ messageId }: { messageId: string }) => this.#tell({ kind: 'deleted', messageId }));
    transport.on(typingStart, ({ userId }: { userId: string }) => this.#tell({ kind: 'typing', userId, isTyping: true }));
    transport.on(typingStop, ({ userId }: { userId: string }) => this.#tell({ kind: 'typing', userId, isTyping: false }));
    transport.on('connected', ({ userId }: Welcome) => this.#welcomed(userId));
    // The server may be configured with another welcome event or none.
    transport.on('bugle:resumed', () => this.#ready());
    transport.subscribe(({ isConnected }) => {
      if (!isConnected) this.#isReady = false;
    });
    this.#isReady = transport.state.isConnected;
  }

  #welcomed(userId: string): void {
    if (this.#userId !== undefined && this.#userId !== userId) this.reset();
    this.#userId = userId;
    this.#ready();
  }

  #ready(): void {
    if (this.#isReady) return;
    this.#isReady = true;
    this.outbox.connected();
  }

  #tell(change: MessageChange): void {
    for (const listener of [...this.#listeners]) listener(change);
  }
}

/** Whether a failed request may have named a deleted message in `before`. */
export function isUnknownCursor({ code }: BugleError): boolean {
  return code === 'not_found' || code === 'invalid_argument';
}

function query(page: PageOptions): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(page)) if (value !== undefined) parameters.set(name, String(value));
  const text = parameters.toString();
  return text && `?${text}`;
}
