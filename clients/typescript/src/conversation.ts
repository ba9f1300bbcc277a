import type { ConnectionState } from './connection.js';
import type { ConversationMessage, DirectMessage, MessageTopic, PendingMessage } from './direct_message.js';
import { type DirectMessages, isUnknownCursor, MAX_PAGE, type MessageChange } from './direct_messages.js';
import type { BugleError } from './errors.js';
import { Loader } from './loader.js';
import { Observable } from './observable.js';
import { Timeline, type TimelineEntry } from './timeline.js';
import { Typing } from './typing.js';

export interface ConversationOptions {
  /** The number of messages in one REST request, at most 100. Default 50. */
  pageSize?: number;
  /** The maximum number of messages in memory. Older ones are dropped and are not loaded. Default 1,000. */
  maxMessages?: number;
}

/** The state of a conversation. Replaced by a new object on each change. */
export interface ConversationState {
  /** Oldest first. Unconfirmed messages come last. */
  readonly messages: readonly ConversationMessage[];
  /** `true` until the first load has succeeded or failed. */
  readonly isLoading: boolean;
  readonly isLoadingMore: boolean;
  /** Whether there are older messages that `loadMore` can load. */
  readonly hasMore: boolean;
  /** Whether the other user is typing. */
  readonly isTyping: boolean;
  /** Why the last load, `markRead` or `remove` failed. Transient load failures are retried. */
  readonly error: BugleError | undefined;
}

/**
 * The conversation with another user. Between `start` and `stop` it loads messages over REST and applies events of the socket. After each
 * reconnect it reloads the messages in memory, because Bugle does not store read receipts and deletions for absent devices.
 */
export class Conversation extends Observable<ConversationState> {
  #timeline: Timeline;
  readonly #typing: Typing;
  readonly #loader: Loader;
  readonly #pageSize: number;
  readonly #maxMessages: number;
  readonly #subscriptions: (() => void)[] = [];
  #wasConnected = false;
  #isLoaded = false;
  /** Whether the server has messages that are older than the oldest one in memory. */
  #isMoreThere = false;
  #isLoadingMore = false;
  #error: BugleError | undefined;
  #marking: Promise<void> | undefined;
  /** `markRead` was called without a connection. */
  #isMarkDue = false;
  /** By `clientMessageId` of an unconfirmed message: the number of the next timeline entry at the time of writing. */
  readonly #pendingSince = new Map<string, number>();

  constructor(
    private readonly direct: DirectMessages,
    /** The other user. */
    readonly userId: string,
    { pageSize = 50, maxMessages = 1_000 }: ConversationOptions = {},
  ) {
    super();
    this.#timeline = new Timeline(userId);
    this.#pageSize = Math.min(pageSize, MAX_PAGE);
    this.#maxMessages = maxMessages;
    this.#typing = new Typing((isTyping) => this.direct.typing(userId, isTyping), () => this.changed());
    this.#loader = new Loader((isCurrent) => this.#load(isCurrent), () => this.changed());
  }

  /** Starts loading and listening. The first load waits until the client has connected or failed to. Idempotent. */
  start(): void {
    if (this.#subscriptions.length > 0) return;
    this.#subscriptions.push(
      this.direct.subscribe((change) => this.#apply(change)),
      this.direct.onConnection((state) => this.#connectionChanged(state)),
    );
    this.#connectionChanged(this.direct.connection);
  }

  /** Stops loading and listening. Keeps the messages in memory; the client still sends unsent ones. */
  stop(): void {
    for (const end of this.#subscriptions.splice(0)) end();
    this.#typing.ended();
    this.#typing.reset();
    this.#loader.stop();
    this.#wasConnected = false;
  }

  /**
   * Adds a message to `messages` at once, with `status: 'sending'`, and sends it. Returns its `key`. Every attempt, after a reconnect or by
   * `retry`, has the same `clientMessageId`, so Bugle stores the message once. Throws a `BugleError` (`queue_full`) if 1,000 messages are
   * unsent.
   */
  send(text: string, topic: MessageTopic = {}): string {
    this.#typing.ended();
    return this.direct.outbox.add(this.userId, text, topic);
  }

  /** Sends a failed message again. */
  retry(key: string): void {
    this.direct.outbox.retry(key);
  }

  /** Discards an unsent message, or deletes one of this user for both users. */
  async remove(key: string): Promise<void> {
    if (this.direct.outbox.discard(key)) return;
    const entry = this.#timeline.entries.find((entry) => entry.key === key);
    if (entry) await this.#attempt(() => this.direct.delete(entry.message.id));
  }

  /** Tells the other user that this one is typing, at most every 2.5 s. Call it on each key press. */
  typing(): void {
    this.#typing.typed();
  }

  /** Loads the page before the oldest message. Does nothing while a page is loading or if there is none. */
  async loadMore(): Promise<void> {
    const { oldest } = this.#timeline;
    if (this.#isLoadingMore || !oldest || !this.state.hasMore) return;
    this.#isLoadingMore = true;
    this.changed();
    try {
      await this.#loadBefore(oldest);
      this.#error = undefined;
    } catch (error) {
      // The oldest message in memory was deleted: a reload removes it.
      if (isUnknownCursor(error as BugleError)) this.#loader.request();
      else this.#error = error as BugleError;
    }
    this.#isLoadingMore = false;
    this.changed();
  }

  /** Marks the other user's messages as read. Without a connection, does so on the next one. */
  async markRead(): Promise<void> {
    if (!this.#hasUnread()) return;
    this.#isMarkDue = true;
    if (!this.direct.isConnected) return;
    this.#marking ??= this.#markRead().finally(() => (this.#marking = undefined));
    await this.#marking;
  }

  /** Reloads the messages in memory, as after a reconnect. */
  reload(): void {
    if (this.#subscriptions.length > 0) this.#loader.request();
  }

  protected snapshot(): ConversationState {
    const pending = this.direct.outbox.to(this.userId);
    const hidden = this.#perhapsPending(pending);
    const confirmed = this.#timeline.entries.filter((entry) => !hidden.has(entry));
    return {
      messages: [...confirmed.map((entry) => this.#confirmed(entry)), ...pending.map(unconfirmed)],
      isLoading: !this.#isLoaded && !this.#loader.error,
      isLoadingMore: this.#isLoadingMore,
      hasMore: this.#isMoreThere && this.#timeline.size < this.#maxMessages,
      isTyping: this.#typing.isTyping,
      error: this.#loader.error ?? this.#error,
    };
  }

  #confirmed({ key, message }: TimelineEntry): ConversationMessage {
    const { id, content, transactionId, listingId, isRead, createdAt } = message;
    const isOwn = this.#isOwn(message);
    return { key, id, isOwn, content, transactionId, listingId, isRead, createdAt, status: 'sent', error: undefined };
  }

  /**
   * Returns the entries that are probably pending messages. If the answer to a message was lost, Bugle delivers the message to the client's
   * next connection as if another device had sent it. These entries are hidden until the answer to the retry identifies them.
   */
  #perhapsPending(pending: readonly PendingMessage[]): Set<TimelineEntry> {
    const found = new Set<TimelineEntry>();
    for (const { clientMessageId, content, status, isUncertain } of pending) {
      const since = status === 'sending' || isUncertain ? this.#pendingSince.get(clientMessageId) : undefined;
      if (since === undefined) continue;
      const same = this.#timeline.entries.find(
        (entry) => entry.number >= since && entry.message.content === content && this.#isOwn(entry.message) && !found.has(entry),
      );
      if (same) found.add(same);
    }
    return found;
  }

  #isOwn({ senderId }: DirectMessage): boolean {
    return senderId !== this.userId;
  }

  #hasUnread(): boolean {
    return this.#timeline.entries.some(({ message }) => !message.isRead && !this.#isOwn(message));
  }

  #connectionChanged({ isConnected, error, isStopped }: ConnectionState): void {
    const isNew = isConnected && !this.#wasConnected;
    this.#wasConnected = isConnected;
    if (!isConnected) this.#typing.reset();
    const isRefused = !isConnected && (error !== undefined || isStopped);
    // REST may work where the socket does not.
    if (isNew || (isRefused && !this.#isLoaded && !this.#loader.isRunning && !this.#loader.error)) this.#loader.request();
    if (isNew && this.#isMarkDue) void this.markRead();
  }

  #apply(change: MessageChange): void {
    if (change.kind === 'message') this.#received(change);
    else if (change.kind === 'read') this.#read(change.messageIds);
    else if (change.kind === 'readHere') this.#readHere(change.userId, change.upTo);
    else if (change.kind === 'deleted') this.#deleted(change.messageId);
    else if (change.kind === 'reset') this.#reset();
    else if (change.userId !== this.userId) return;
    else if (change.kind === 'typing') this.#typing.set(change.isTyping);
    else this.#pendingChanged();
  }

  #received({ message, clientMessageId }: Extract<MessageChange, { kind: 'message' }>): void {
    if (message.senderId !== this.userId && message.receiverId !== this.userId) return;
    if (!this.#isOwn(message)) this.#typing.set(false);
    const { oldest } = this.#timeline;
    // Inserting it would leave a gap before the oldest entry. `loadMore` loads it.
    if (this.#isMoreThere && oldest && message.createdAt < oldest.createdAt) return;
    this.#timeline.put(message, clientMessageId);
    if (this.#timeline.trim(this.#maxMessages)) this.#isMoreThere = true;
    this.changed();
  }

  #pendingChanged(): void {
    const pending = this.direct.outbox.to(this.userId);
    const ids = new Set(pending.map(({ clientMessageId }) => clientMessageId));
    for (const id of this.#pendingSince.keys()) if (!ids.has(id)) this.#pendingSince.delete(id);
    for (const id of ids) if (!this.#pendingSince.has(id)) this.#pendingSince.set(id, this.#timeline.nextNumber);
    this.changed();
  }

  #read(messageIds: readonly string[]): void {
    this.#timeline.markRead(messageIds);
    this.changed();
  }

  #readHere(userId: string, upTo: string): void {
    if (userId !== this.userId) return;
    this.#timeline.markReadUpTo(upTo);
    this.changed();
  }

  #deleted(messageId: string): void {
    if (this.#timeline.delete(messageId)) this.changed();
  }

  #reset(): void {
    this.#timeline = new Timeline(this.userId);
    this.#pendingSince.clear();
    this.#typing.reset();
    this.#loader.stop();
    [this.#isLoaded, this.#isMoreThere, this.#isMarkDue, this.#error] = [false, false, false, undefined];
    if (this.direct.isConnected) this.#loader.request();
    this.changed();
  }

  /** Loads pages from the newest message back to the oldest one in memory. */
  async #load(isCurrent: () => boolean): Promise<void> {
    const known = this.#timeline.ids();
    const oldest = this.#isLoaded ? this.#timeline.oldest : undefined;
    let [isEnd, count] = [false, 0];
    let last: DirectMessage | undefined;
    do {
      const page = await this.direct.conversation(this.userId, this.#pageAfter(last));
      if (!isCurrent()) return;
      isEnd = page.length < this.#pageSize;
      this.#timeline.reconcile(page, known, isEnd, last?.createdAt);
      last = page.at(-1) ?? last;
      count += page.length;
    } while (!isEnd && oldest && last && last.createdAt > oldest.createdAt && count < this.#maxMessages);
    // Older entries came as events: there may be gaps between them.
    if (!isEnd && last) this.#timeline.dropBefore(last.createdAt);
    this.#isMoreThere = !isEnd;
    this.#isLoaded = true;
    if (this.#timeline.trim(this.#maxMessages)) this.#isMoreThere = true;
    if (this.#isMarkDue) void this.markRead();
  }

  async #loadBefore(oldest: DirectMessage): Promise<void> {
    const known = this.#timeline.ids();
    const page = await this.direct.conversation(this.userId, this.#pageAfter(oldest));
    // A reload or a change of user has replaced the entries.
    if (this.#timeline.oldest?.id !== oldest.id) return;
    const isEnd = page.length < this.#pageSize;
    this.#timeline.reconcile(page, known, isEnd, oldest.createdAt);
    this.#isMoreThere = !isEnd;
  }

  #pageAfter(last: DirectMessage | undefined): { limit: number; before?: string } {
    return { limit: this.#pageSize, ...(last && { before: last.id }) };
  }

  async #markRead(): Promise<void> {
    while (this.#isMarkDue && this.#hasUnread()) {
      this.#isMarkDue = false;
      // A message that arrives during the request may not be marked.
      const upTo = this.#timeline.newest!.createdAt;
      await this.#attempt(() => this.direct.markRead(this.userId, upTo));
      if (this.#error) {
        this.#isMarkDue = this.#error.isTransient && !this.direct.isConnected;
        return;
      }
      // Its answer may have messages that Bugle has marked since and that are newer than `upTo`.
      if (this.#loader.isRunning) this.#loader.request();
    }
    this.#isMarkDue = false;
  }

  /** Runs an action and records its failure in `error`. */
  async #attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action();
      this.#error = undefined;
    } catch (error) {
      this.#error = error as BugleError;
    }
    this.changed();
  }
}

function unconfirmed(message: PendingMessage): ConversationMessage {
  const { clientMessageId, content, topic, createdAt, status, error } = message;
  const { transactionId = null, listingId = null } = topic;
  return { key: clientMessageId, id: undefined, isOwn: true, content, transactionId, listingId, isRead: false, createdAt, status, error };
}
