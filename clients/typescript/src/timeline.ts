import type { DirectMessage } from './direct_message.js';
import { RecentIds } from './recent_ids.js';

/** The number of remembered ids of deleted messages, and of messages that were read before they were loaded. */
const REMEMBERED = 2_000;

export interface TimelineEntry {
  key: string;
  message: DirectMessage;
  /** Numbers the entries in the order of their arrival. */
  readonly number: number;
}

/** The confirmed messages of a conversation, oldest first, each id once. */
export class Timeline {
  #entries: TimelineEntry[] = [];
  readonly #byId = new Map<string, TimelineEntry>();
  readonly #deleted = new RecentIds(REMEMBERED);
  readonly #read = new RecentIds(REMEMBERED);
  /** Messages of the other user up to this time were read. */
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

  /** The number that the next entry will get. */
  get nextNumber(): number {
    return this.#count;
  }

  ids(): Set<string> {
    return new Set(this.#byId.keys());
  }

  /** Adds or updates a message, and sets its key if one is given. A read message stays read, since an answer may be older than the receipt. */
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

  /** Deletes a message. A later `put` of it has no effect. Returns whether it was there. */
  delete(id: string): boolean {
    this.#deleted.add(id);
    return this.#remove(id);
  }

  /** Marks these messages as read, also those that are added later. */
  markRead(ids: readonly string[]): void {
    for (const id of ids) if (!this.#byId.has(id)) this.#read.add(id);
    const wanted = new Set(ids);
    this.#mark(({ id }) => wanted.has(id));
  }

  /** Marks the other user's messages up to a time as read. */
  markReadUpTo(createdAt: string): void {
    if (createdAt > this.#readUpTo) this.#readUpTo = createdAt;
    this.#mark((message) => this.#wasRead(message));
  }

  /**
   * Merges a page: all messages older than `upTo`, down to its last one, or down to the first of the conversation if `isEnd`. Removes
   * messages of that range that are in `known`, the ids at the time of the request, and not in the page: they were deleted.
   */
  reconcile(page: readonly DirectMessage[], known: ReadonlySet<string>, isEnd: boolean, upTo?: string): void {
    const from = isEnd ? '' : (page.at(-1)?.createdAt ?? '');
    const there = new Set(page.map(({ id }) => id));
    const isMissing = ({ id, createdAt }: DirectMessage) =>
      known.has(id) && !there.has(id) && createdAt >= from && (upTo === undefined || createdAt < upTo);
    for (const { message } of [...this.#entries]) if (isMissing(message)) this.#remove(message.id);
    for (const message of page) this.put(message);
  }

  /** Keeps the newest `max` messages. Returns whether there were more. */
  trim(max: number): boolean {
    if (this.#entries.length <= max) return false;
    for (const { message } of this.#entries.splice(0, this.#entries.length - max)) this.#byId.delete(message.id);
    return true;
  }

  /** Drops messages older than this time. */
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
