import type { ConnectionState } from './connection.js';
import type { ConversationMessage, DirectMessage, MessageTopic, PendingMessage } from './direct_message.js';
import { type DirectMessages, isUnknownCursor, MAX_PAGE, type MessageChange } from './direct_messages.js';
import type { BugleError } from './errors.js';
import { Loader } from './loader.js';
import { Observable } from './observable.js';
import { Timeline, type TimelineEntry } from './timeline.js';
import { Typing } from './typing.js';

export interface ConversationOptions {
  /** How many messages a request over REST asks for, at most 100. Default 50. */
  pageSize?: number;
  /** The largest number of messages that are kept in memory; older ones are dropped, and not loaded. Default 1,000. */
  maxMessages?: number;
}

/** What an app shows of a conversation. A new object whenever it changes. */
export interface ConversationState {
  /** The oldest first; those that are not confirmed last. */
  readonly messages: readonly ConversationMessage[];
  /** Nothing was loaded yet, and nothing has failed. */
  readonly isLoading: boolean;
  readonly isLoadingMore: boolean;
  /** Whether there are older messages that `loadMore` can load. */
  readonly hasMore: boolean;
  /** Whether the other user types. */
  readonly isTyping: boolean;
  /** Why messages could not be loaded, or not be marked or deleted. Loading is tried again if that may help. */
  readonly error: BugleError | undefined;
}

/**
 * The conversation with another user, from `start` to `stop`: loaded over REST, and kept up to date over the socket. After each reconnect
 * the messages that it has are loaded again, since read receipts and deletions are not sent to a client that was away.
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
  /** Whether the server has older messages than the oldest one here. */
  #isMoreThere = false;
  #isLoadingMore = false;
  #error: BugleError | undefined;
  #marking: Promise<void> | undefined;
  /** `markRead` could not be told to Bugle. */
  #isMarkDue = false;
  /** The number of the next entry when a message was written that is not confirmed, by its `clientMessageId`. */
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

  /** Begins to load and to listen, unless it has begun. Nothing is loaded before the client has connected, or tried to. */
  start(): void {
    if (this.#subscriptions.length > 0) return;
    this.#subscriptions.push(
      this.direct.subscribe((change) => this.#apply(change)),
      this.direct.onConnection((state) => this.#connectionChanged(state)),
    );
    this.#connectionChanged(this.direct.connection);
  }

  /** Ends that. Messages stay for another `start`; those that are not sent are sent all the same. */
  stop(): void {
    for (const end of this.#subscriptions.splice(0)) end();
    this.#typing.ended();
    this.#typing.reset();
    this.#loader.stop();
    this.#wasConnected = false;
  }

  /**
   * Sends a message; the `key` of its entry in `messages`, where it stands at once, and where its `status` says what becomes of it. It is
   * sent under one `clientMessageId` until Bugle has answered, also after reconnects and by `retry`: it is stored once. Throws a
   * `BugleError` (`queue_full`) while 1,000 messages are not sent.
   */
  send(text: string, topic: MessageTopic = {}): string {
    this.#typing.ended();
    return this.direct.outbox.add(this.userId, text, topic);
  }

  /** Sends a failed message again. */
  retry(key: string): void {
    this.direct.outbox.retry(key);
  }

  /** Takes a message away that was not sent, or deletes one of this user for both sides. */
  async remove(key: string): Promise<void> {
    if (this.direct.outbox.discard(key)) return;
    const entry = this.#timeline.entries.find((entry) => entry.key === key);
    if (entry) await this.#attempt(() => this.direct.delete(entry.message.id));
  }

  /** To be called when the user types: the other user is told, at most every 2.5 s. */
  typing(): void {
    this.#typing.typed();
  }

  /** Loads the page before the oldest message, unless one is being loaded or there is none. */
  async loadMore(): Promise<void> {
    const { oldest } = this.#timeline;
    if (this.#isLoadingMore || !oldest || !this.state.hasMore) return;
    this.#isLoadingMore = true;
    this.changed();
    try {
      await this.#loadBefore(oldest);
      this.#error = undefined;
    } catch (error) {
      // The oldest message here may have been deleted: loading anew finds that out.
      if (isUnknownCursor(error as BugleError)) this.#loader.request();
      else this.#error = error as BugleError;
    }
    this.#isLoadingMore = false;
    this.changed();
  }

  /** Marks what the other user has written as read. Without a connection that is done on the next one. */
  async markRead(): Promise<void> {
    if (!this.#hasUnread()) return;
    this.#isMarkDue = true;
    if (!this.direct.isConnected) return;
    this.#marking ??= this.#markRead().finally(() => (this.#marking = undefined));
    await this.#marking;
  }

  /** Loads the newest messages anew, as after a reconnect. */
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
   * The entries that probably are messages that are still being sent: Bugle gives a message whose answer was lost to the client's next
   * connection, as if another device had sent it. They are not shown twice; the answer says which one it was.
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
    // Without a connection REST may work: at first, that is worth a try.
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
    // A page will bring it: there may be others between it and the oldest one.
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

  /** Loads the newest messages, and as many older ones as there are here. */
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
    // What is older was not asked for, and may have gaps.
    if (!isEnd && last) this.#timeline.dropBefore(last.createdAt);
    this.#isMoreThere = !isEnd;
    this.#isLoaded = true;
    if (this.#timeline.trim(this.#maxMessages)) this.#isMoreThere = true;
    if (this.#isMarkDue) void this.markRead();
  }

  async #loadBefore(oldest: DirectMessage): Promise<void> {
    const known = this.#timeline.ids();
    const page = await this.direct.conversation(this.userId, this.#pageAfter(oldest));
    // A reload or another user may have changed what is here.
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
      // A message that comes meanwhile may be newer than what Bugle has marked.
      const upTo = this.#timeline.newest!.createdAt;
      await this.#attempt(() => this.direct.markRead(this.userId, upTo));
      if (this.#error) {
        this.#isMarkDue = this.#error.isTransient && !this.direct.isConnected;
        return;
      }
      // Its answer may be older, and have messages that Bugle has marked and that are newer than the time.
      if (this.#loader.isRunning) this.#loader.request();
    }
    this.#isMarkDue = false;
  }

  /** Does something, and shows why it has failed. */
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
