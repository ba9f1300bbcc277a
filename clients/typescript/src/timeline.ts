import type { DirectMessage } from './direct_message.js';
import { RecentIds } from './recent_ids.js';

/** How many ids are remembered of messages that were deleted, or read before they were here: an answer may be older than that. */
const REMEMBERED = 2_000;

export interface TimelineEntry {
  key: string;
  message: DirectMessage;
  /** Counts the entries of a timeline, in the order in which they came. */
  readonly number: number;
}

/** The confirmed messages of a conversation: each id once, the oldest first. */
export class Timeline {
  #entries: TimelineEntry[] = [];
  readonly #byId = new Map<string, TimelineEntry>();
  readonly #deleted = new RecentIds(REMEMBERED);
  readonly #read = new RecentIds(REMEMBERED);
  /** What the other user has written up to this time was read. */
  #readUpTo = '';
  #count = 0;

  constructor(
    /** The other user. */
    private readonly peer: string,
  ) {}

  get entries(): readonly TimelineEntry[] {
    return this.#entries;
  }

  get oldest(): DirectMessage | undefined {
    return this.#entries[0]?.message;
  }

  get newest(): DirectMessage | undefined {
    return this.#entries.at(-1)?.message;
  }

  get size(): number {
    return this.#entries.length;
  }

  /** The number of the next entry. */
  get nextNumber(): number {
    return this.#count;
  }

  ids(): Set<string> {
    return new Set(this.#byId.keys());
  }

  /** Adds a message, or updates it, and its key if one is given. What is read stays read: an answer may be older than the receipt. */
  put(message: DirectMessage, key?: string): void {
    if (this.#deleted.has(message.id)) return;
    const known = this.#byId.get(message.id);
    const isRead = message.isRead || (known?.message.isRead ?? this.#wasRead(message));
    if (known) {
      known.message = { ...message, isRead };
      known.key = key ?? known.key;
    } else {
      this.#insert({ key: key ?? message.id, message: { ...message, isRead }, number: this.#count++ });
    }
  }

  /** Deletes a message for good; whether it was there. */
  delete(id: string): boolean {
    this.#deleted.add(id);
    return this.#remove(id);
  }

  /** Marks these messages as read, also those that are not here yet. */
  markRead(ids: readonly string[]): void {
    for (const id of ids) if (!this.#byId.has(id)) this.#read.add(id);
    const wanted = new Set(ids);
    this.#mark(({ id }) => wanted.has(id));
  }

  /** Marks what the other user has written up to a time as read. */
  markReadUpTo(createdAt: string): void {
    if (createdAt > this.#readUpTo) this.#readUpTo = createdAt;
    this.#mark((message) => this.#wasRead(message));
  }

  /**
   * Takes a page in, which has all messages that are older than `upTo` and not older than its last one; with `isEnd`, all older ones. Of the
   * messages that were known when the page was asked for, those that are missing in it were deleted.
   */
  reconcile(page: readonly DirectMessage[], known: ReadonlySet<string>, isEnd: boolean, upTo?: string): void {
    const from = isEnd ? '' : (page.at(-1)?.createdAt ?? '');
    const there = new Set(page.map(({ id }) => id));
    const isMissing = ({ id, createdAt }: DirectMessage) =>
      known.has(id) && !there.has(id) && createdAt >= from && (upTo === undefined || createdAt < upTo);
    for (const { message } of [...this.#entries]) if (isMissing(message)) this.#remove(message.id);
    for (const message of page) this.put(message);
  }

  /** Drops the oldest messages but for so many; whether there were more. */
  trim(max: number): boolean {
    if (this.#entries.length <= max) return false;
    for (const { message } of this.#entries.splice(0, this.#entries.length - max)) this.#byId.delete(message.id);
    return true;
  }

  /** Drops the messages that are older than this time. */
  dropBefore(createdAt: string): void {
    const index = this.#entries.findIndex(({ message }) => message.createdAt >= createdAt);
    this.trim(index < 0 ? 0 : this.#entries.length - index);
  }

  #wasRead({ id, senderId, createdAt }: DirectMessage): boolean {
    return this.#read.has(id) || (senderId === this.peer && createdAt <= this.#readUpTo);
  }

  #mark(fits: (message: DirectMessage) => boolean): void {
    for (const entry of this.#entries) {
      if (!entry.message.isRead && fits(entry.message)) entry.message = { ...entry.message, isRead: true };
    }
  }

  #insert(entry: TimelineEntry): void {
    let index = this.#entries.length;
    while (index > 0 && isAfter(this.#entries[index - 1]!.message, entry.message)) index -= 1;
    this.#entries.splice(index, 0, entry);
    this.#byId.set(entry.message.id, entry);
  }

  #remove(id: string): boolean {
    const entry = this.#byId.get(id);
    if (!entry) return false;
    this.#byId.delete(id);
    this.#entries.splice(this.#entries.indexOf(entry), 1);
    return true;
  }
}

function isAfter(one: DirectMessage, other: DirectMessage): boolean {
  return one.createdAt === other.createdAt ? one.id > other.id : one.createdAt > other.createdAt;
}
