import type { ConnectionState } from './connection.js';
import type { ConversationSummary, DirectMessage } from './direct_message.js';
import { type DirectMessages, isUnknownCursor, MAX_PAGE, type MessageChange } from './direct_messages.js';
import type { BugleError } from './errors.js';
import { Loader } from './loader.js';
import { Observable } from './observable.js';

export interface ConversationsOptions {
  /** The number of conversations in one REST request, at most 100. Default 50. */
  pageSize?: number;
  /** The maximum number of conversations in memory. Default 500. */
  maxConversations?: number;
}

/** The state of the list of conversations. Replaced by a new object on each change. */
export interface ConversationsState {
  /** Ordered by their last message, newest first. */
  readonly conversations: readonly ConversationSummary[];
  /** The number of unread messages in all conversations, loaded or not. */
  readonly unreadCount: number;
  /** `true` until the first load has succeeded or failed. */
  readonly isLoading: boolean;
  readonly isLoadingMore: boolean;
  /** Whether there are more conversations that `loadMore` can load. */
  readonly hasMore: boolean;
  /** Why the last load failed. Transient failures are retried. */
  readonly error: BugleError | undefined;
}

/** The user's conversations. Between `start` and `stop` it loads them over REST, again after each reconnect, and applies events of the socket. */
export class Conversations extends Observable<ConversationsState> {
  #list: readonly ConversationSummary[] = [];
  /** In all conversations, also those that are not in the list. */
  #unreadCount = 0;
  readonly #loader: Loader;
  readonly #pageSize: number;
  readonly #maxConversations: number;
  readonly #subscriptions: (() => void)[] = [];
  /** Changes since the current load began. Its answers may include them or not. */
  #meanwhile: MessageChange[] = [];
  #wasConnected = false;
  #isLoaded = false;
  #isMoreThere = false;
  #isLoadingMore = false;
  #error: BugleError | undefined;

  constructor(
    private readonly direct: DirectMessages,
    { pageSize = 50, maxConversations = 500 }: ConversationsOptions = {},
  ) {
    super();
    this.#pageSize = Math.min(pageSize, MAX_PAGE);
    this.#maxConversations = maxConversations;
    this.#loader = new Loader((isCurrent) => this.#load(isCurrent), () => this.changed());
  }

  /** Starts loading and listening. The first load waits until the client has connected or failed to. Idempotent. */
  start(): void {
    if (this.#subscriptions.length > 0) return;
    this.#subscriptions.push(
      this.direct.subscribe((change) => this.#changed(change)),
      this.direct.onConnection((state) => this.#connectionChanged(state)),
    );
    this.#connectionChanged(this.direct.connection);
  }

  /** Stops loading and listening. Keeps the list in memory. */
  stop(): void {
    for (const end of this.#subscriptions.splice(0)) end();
    this.#loader.stop();
    this.#wasConnected = false;
  }

  /** Loads the page after the last conversation. Does nothing while a page is loading or if there is none. */
  async loadMore(): Promise<void> {
    const last = this.#list.at(-1);
    if (this.#isLoadingMore || !last || !this.state.hasMore) return;
    this.#isLoadingMore = true;
    this.changed();
    try {
      const page = await this.direct.conversations(this.#pageAfter(last));
      if (this.#list.at(-1) === last) this.#append(page);
      this.#error = undefined;
    } catch (error) {
      // The last message of that conversation was deleted: a reload corrects it.
      if (isUnknownCursor(error as BugleError)) this.#loader.request();
      else this.#error = error as BugleError;
    }
    this.#isLoadingMore = false;
    this.changed();
  }

  /** Reloads the list, as after a reconnect. */
  reload(): void {
    if (this.#subscriptions.length > 0) this.#loader.request();
  }

  protected snapshot(): ConversationsState {
    return {
      conversations: this.#list,
      unreadCount: this.#unreadCount,
      isLoading: !this.#isLoaded && !this.#loader.error,
      isLoadingMore: this.#isLoadingMore,
      hasMore: this.#isMoreThere && this.#list.length < this.#maxConversations,
      error: this.#loader.error ?? this.#error,
    };
  }

  #connectionChanged({ isConnected, error, isStopped }: ConnectionState): void {
    const isNew = isConnected && !this.#wasConnected;
    this.#wasConnected = isConnected;
    const isRefused = !isConnected && (error !== undefined || isStopped);
    // REST may work where the socket does not.
    if (isNew || (isRefused && !this.#isLoaded && !this.#loader.isRunning && !this.#loader.error)) this.#loader.request();
  }

  #changed(change: MessageChange): void {
    if (change.kind === 'reset') {
      this.#reset();
      return;
    }
    if (change.kind === 'typing' || change.kind === 'pending') return;
    if (this.#loader.isRunning) this.#meanwhile.push(change);
    if (this.#isLoaded && !this.#apply(change)) this.#loader.request();
    this.changed();
  }

  /** Applies a change to the list. Returns `false` if the list must be reloaded. */
  #apply(change: MessageChange): boolean {
    if (change.kind === 'message') return this.#received(change.message);
    if (change.kind === 'read') return this.#read(change.messageIds, change.readerId);
    if (change.kind === 'readHere') return this.#readHere(change.userId, change.upTo);
    // A deleted message may have been the last one or an unread one of any conversation.
    return change.kind !== 'deleted';
  }

  #received(message: DirectMessage): boolean {
    const { senderId, receiverId, createdAt } = message;
    const known = this.#list.find(({ userId }) => userId === senderId || userId === receiverId);
    if (!known) return false;
    // `createdAt` increases within a conversation: this message is already counted.
    if (createdAt <= known.lastMessage.createdAt) return true;
    const added = senderId === known.userId && !message.isRead ? 1 : 0;
    this.#replace(known, { lastMessage: message, unreadCount: known.unreadCount + added });
    return true;
  }

  /** The event does not name the conversation: its last message identifies it. */
  #read(messageIds: readonly string[], readerId: string): boolean {
    const known = this.#list.find(({ lastMessage }) => messageIds.includes(lastMessage.id));
    const isByPeer = this.#list.some(({ userId }) => userId === readerId);
    if (!known) return isByPeer;
    const lastMessage = { ...known.lastMessage, isRead: true };
    const unreadCount = isByPeer ? known.unreadCount : Math.max(0, known.unreadCount - messageIds.length);
    this.#replace(known, { lastMessage, unreadCount });
    return unreadCount === 0 || isByPeer;
  }

  #readHere(peer: string, upTo: string): boolean {
    const known = this.#list.find(({ userId }) => userId === peer);
    if (!known || known.lastMessage.createdAt > upTo) return false;
    const isOwn = known.lastMessage.senderId !== peer;
    this.#replace(known, { lastMessage: isOwn ? known.lastMessage : { ...known.lastMessage, isRead: true }, unreadCount: 0 });
    return true;
  }

  #replace(known: ConversationSummary, change: Omit<ConversationSummary, 'userId'>): void {
    this.#list = ordered(this.#list.map((other) => (other === known ? { userId: known.userId, ...change } : other)));
    this.#unreadCount = Math.max(0, this.#unreadCount + change.unreadCount - known.unreadCount);
  }

  #reset(): void {
    this.#loader.stop();
    [this.#list, this.#unreadCount, this.#isLoaded, this.#isMoreThere, this.#error] = [[], 0, false, false, undefined];
    if (this.direct.isConnected) this.#loader.request();
    this.changed();
  }

  /** Loads as many conversations as are in memory, and the unread count. */
  async #load(isCurrent: () => boolean): Promise<void> {
    this.#meanwhile = [];
    const wanted = this.#list.length;
    const list = new Map<string, ConversationSummary>();
    let last: ConversationSummary | undefined;
    let isEnd = false;
    do {
      const page = await this.direct.conversations(this.#pageAfter(last));
      if (!isCurrent()) return;
      for (const summary of page) if (!list.has(summary.userId)) list.set(summary.userId, summary);
      isEnd = page.length < this.#pageSize;
      last = page.at(-1);
    } while (!isEnd && list.size < wanted);
    const all = [...list.values()].slice(0, this.#maxConversations);
    const unreadCount = isEnd ? all.reduce((sum, summary) => sum + summary.unreadCount, 0) : await this.direct.unreadCount();
    if (!isCurrent()) return;
    this.#list = ordered(all);
    [this.#unreadCount, this.#isMoreThere, this.#isLoaded] = [unreadCount, !isEnd, true];
    this.#applyAgain(isEnd);
  }

  /** Applies the changes since the load began. Reloads if the answers may include one of them or not, and the list does not tell. */
  #applyAgain(isComplete: boolean): void {
    const changes = this.#meanwhile.splice(0);
    const isClear = changes.every((change) => change.kind === 'message' && isComplete && this.#apply(change));
    if (!isClear) this.#loader.request();
  }

  #append(page: readonly ConversationSummary[]): void {
    const known = new Set(this.#list.map(({ userId }) => userId));
    this.#list = ordered([...this.#list, ...page.filter(({ userId }) => !known.has(userId))]).slice(0, this.#maxConversations);
    this.#isMoreThere = page.length === this.#pageSize;
  }

  #pageAfter(last: ConversationSummary | undefined): { limit: number; before?: string } {
    return { limit: this.#pageSize, ...(last && { before: last.lastMessage.id }) };
  }
}

/** The newest first. */
function ordered(list: readonly ConversationSummary[]): ConversationSummary[] {
  return [...list].sort((one, other) => (one.lastMessage.createdAt < other.lastMessage.createdAt ? 1 : -1));
}
