import { BugleError, type ConnectionState, type ConversationSummary, type DirectMessage, DirectMessages, type HttpMethod, type MessageTransport } from '../../src/index.js';

interface Sent {
  receiverId: string;
  message: string;
  transactionId?: string;
  listingId?: string;
  clientMessageId: string;
}

/** Lets all that is under way in memory come to rest. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

/** Bugle's direct messages in memory: what routes and events do, and what mailboxes bring again. */
export class MemoryMessages {
  messages: DirectMessage[] = [];
  readonly #devices = new Set<MemoryDevice>();
  readonly #byKey = new Map<string, DirectMessage>();
  #time = Date.parse('2026-01-31T09:00:00.000Z');

  /** A device of a user; connected, unless that is not wanted. */
  device(user: string, isConnected = true): MemoryDevice {
    const device = new MemoryDevice(this, user);
    this.#devices.add(device);
    if (isConnected) device.connect();
    return device;
  }

  send(sender: string, receiverId: string, content: string, from?: MemoryDevice, sent?: Sent): DirectMessage {
    const key = sent && `${sender} ${sent.clientMessageId}`;
    const known = key === undefined ? undefined : this.#byKey.get(key);
    if (known && !this.messages.includes(known)) throw new BugleError('conflict', 'deleted');
    if (known) return known;
    const createdAt = new Date(this.#time++).toISOString();
    const message: DirectMessage = {
      id: `m-${this.messages.length}-${createdAt}`,
      senderId: sender,
      receiverId,
      content,
      transactionId: sent?.transactionId ?? null,
      listingId: sent?.listingId ?? null,
      isRead: false,
      createdAt,
      updatedAt: createdAt,
    };
    this.messages.push(message);
    if (key !== undefined) this.#byKey.set(key, message);
    this.#tell(message, 'message:received', { ...message }, from);
    return message;
  }

  read(reader: string, peer: string, from?: MemoryDevice): number {
    const unread = this.messages.filter(({ senderId, receiverId, isRead }) => !isRead && senderId === peer && receiverId === reader);
    for (const message of unread) message.isRead = true;
    const messageIds = unread.map(({ id }) => id);
    const [first] = unread;
    if (first) this.#tell(first, 'message:read', { messageIds, readerId: reader, readAt: first.createdAt }, from);
    return unread.length;
  }

  delete(id: string, from?: MemoryDevice): void {
    const message = this.messages.find((message) => message.id === id);
    if (!message) throw new BugleError('not_found', id);
    this.messages = this.messages.filter((other) => other !== message);
    for (const device of this.#devices) device.forget(id);
    this.#tell(message, 'message:deleted', { messageId: id }, from);
  }

  tell(user: string, event: string, payload: unknown): void {
    for (const device of this.#devices) if (device.user === user) device.hand(event, payload);
  }

  /** Newest first. */
  conversation(user: string, peer: string): DirectMessage[] {
    const between = [user, peer].sort().join();
    return this.messages.filter(({ senderId, receiverId }) => [senderId, receiverId].sort().join() === between).reverse();
  }

  /** Newest first. */
  conversations(user: string): ConversationSummary[] {
    const peers = new Set<string>();
    for (const { senderId, receiverId } of [...this.messages].reverse()) {
      if (senderId === user) peers.add(receiverId);
      if (receiverId === user) peers.add(senderId);
    }
    return [...peers].map((userId) => {
      const [lastMessage, ...others] = this.conversation(user, userId);
      const unread = [lastMessage!, ...others].filter(({ senderId, isRead }) => senderId === userId && !isRead);
      return { userId, lastMessage: lastMessage!, unreadCount: unread.length };
    });
  }

  unreadCount(user: string): number {
    return this.messages.filter(({ receiverId, isRead }) => receiverId === user && !isRead).length;
  }

  #tell({ senderId, receiverId }: DirectMessage, event: string, payload: unknown, except?: MemoryDevice): void {
    for (const device of this.#devices) {
      if (device !== except && (device.user === senderId || device.user === receiverId)) device.hand(event, payload);
    }
  }
}

/** A device, as `DirectMessages` sees a client. */
export class MemoryDevice implements MessageTransport {
  state: ConnectionState = { isConnected: false, error: undefined, isStopped: false };
  readonly direct: DirectMessages;
  /** The events that it has sent, with their payloads, and the paths of its requests. */
  readonly sent: [string, unknown][] = [];
  readonly requests: string[] = [];
  /** Bugle does what it is sent, but the answer is lost with the connection. */
  losesAnswers = false;
  /** Bugle's refusals of the next events or requests. */
  refusals: BugleError[] = [];
  /** When set, answers to requests come after it. */
  gate: Promise<unknown> | undefined;
  readonly #handlers = new Map<string, Set<(payload: any) => unknown>>();
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  #mailbox: DirectMessage[] = [];
  #lost: (() => void)[] = [];

  constructor(
    private readonly server: MemoryMessages,
    public user: string,
  ) {
    this.direct = new DirectMessages(this);
  }

  /** Connects, also as another user. */
  connect(userId = this.user): void {
    if (this.state.isConnected) return;
    this.user = userId;
    this.#become({ isConnected: true, error: undefined, isStopped: false });
    this.#emit('connected', { userId, connectionId: 'c', rooms: [] });
    for (const message of this.#mailbox.splice(0)) this.#emit('message:received', message);
  }

  disconnect(error = new BugleError('transport', 'connection lost')): void {
    this.#become({ isConnected: false, error, isStopped: false });
    for (const lose of this.#lost.splice(0)) lose();
  }

  /** Gives the device an event now, or on its return if it is stored. */
  hand(event: string, payload: unknown): void {
    if (this.state.isConnected) this.#emit(event, payload);
    else if (event === 'message:received') this.#mailbox.push(payload as DirectMessage);
  }

  /** A deleted message is not in the mailbox any more. */
  forget(id: string): void {
    this.#mailbox = this.#mailbox.filter((message) => message.id !== id);
  }

  subscribe(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  on(event: string, handler: (payload: any) => unknown): () => void {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  async send(event: string, payload?: unknown): Promise<unknown> {
    this.sent.push([event, payload]);
    const refusal = this.refusals.shift();
    if (refusal) throw refusal;
    // An answer that is lost is of a connection that is: the message comes to the next one as another device's.
    const answer = this.#handle(event, payload as never, this.losesAnswers ? undefined : this);
    if (!this.losesAnswers) return answer;
    return new Promise((_, reject) => this.#lost.push(() => reject(new BugleError('no_answer', event))));
  }

  async request(method: HttpMethod, path: string): Promise<unknown> {
    this.requests.push(`${method} ${path}`);
    const refusal = this.refusals.shift();
    if (refusal) throw refusal;
    const { pathname, searchParams } = new URL(path, 'http://memory');
    const answer = structuredClone(this.#answer(pathname.split('/').slice(3), searchParams));
    await this.gate;
    return answer;
  }

  #answer([route, peer]: string[], parameters: URLSearchParams): unknown {
    const page = <Entry>(all: Entry[], messageOf: (entry: Entry) => DirectMessage) => {
      const before = parameters.get('before');
      const first = this.server.messages.find(({ id }) => id === before);
      if (before !== null && !first) throw new BugleError('not_found', before);
      const older = all.filter((entry) => !first || messageOf(entry).createdAt < first.createdAt);
      return older.slice(0, Number(parameters.get('limit') ?? 50));
    };
    if (route === 'conversation') return page(this.server.conversation(this.user, decodeURIComponent(peer!)), (message) => message);
    if (route === 'conversations') return page(this.server.conversations(this.user), ({ lastMessage }) => lastMessage);
    if (route === 'unread-count') return { count: this.server.unreadCount(this.user) };
    throw new BugleError('not_found', String(route));
  }

  #handle(event: string, payload: any, from: MemoryDevice | undefined): unknown {
    if (event === 'message:send') {
      if (from === undefined) this.#mailbox.push(this.server.send(this.user, payload.receiverId, payload.message, this, payload));
      return { ok: true, message: this.server.send(this.user, payload.receiverId, payload.message, this, payload) };
    }
    if (event === 'message:read') return { ok: true, count: this.server.read(this.user, payload.userId, from) };
    if (event === 'message:delete') this.server.delete(payload.messageId, from);
    if (event.startsWith('typing:')) this.server.tell(payload, event, { userId: this.user });
    return { ok: true };
  }

  #emit(event: string, payload: unknown): void {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) handler(structuredClone(payload));
  }

  #become(state: ConnectionState): void {
    this.state = state;
    for (const listener of [...this.#listeners]) listener(state);
  }
}
