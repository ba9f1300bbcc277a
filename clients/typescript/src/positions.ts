import type { RoomResumed } from './events.js';
import type { PositionMap, PositionStorage } from './storage.js';

/** Where each room stands: the position of the last message that the handlers were given. */
export class Positions {
  #last = new Map<string, string>();
  /** The rooms of which this connection has brought a message. */
  #heardOf = new Set<string>();
  #loading: Promise<void> | undefined;
  #writing = false;
  #changed = false;

  constructor(
    private readonly storage: PositionStorage | undefined,
    private readonly failed: (cause: unknown) => void,
  ) {}

  /** Reads the storage, the first time. */
  load(): Promise<void> {
    this.#loading ??= this.#read();
    return this.#loading;
  }

  /** What a new connection resumes from. */
  resume(): PositionMap {
    this.#heardOf.clear();
    return Object.fromEntries(this.#last);
  }

  /** The handlers were given this message. */
  handed(room: string, position: string): void {
    this.#heardOf.add(room);
    if (isAfter(position, this.#last.get(room))) this.#set(room, position);
  }

  /** Bugle said how a room was caught up with. */
  resumed(room: string, { recovered, position }: RoomResumed): void {
    if (position === undefined) {
      this.forget(room);
      return;
    }
    // What this connection has brought is later than where it began; what an earlier one left is worth nothing after a gap.
    const adopt = !recovered && !this.#heardOf.has(room);
    if (adopt || isAfter(position, this.#last.get(room))) this.#set(room, position);
  }

  /** No longer resumes a room; without one, none. */
  forget(room?: string): void {
    if (room === undefined) this.#last.clear();
    else if (!this.#last.delete(room)) return;
    void this.#write();
  }

  #set(room: string, position: string): void {
    this.#last.set(room, position);
    void this.#write();
  }

  async #read(): Promise<void> {
    if (!this.storage) return;
    try {
      const stored = (await this.storage.get()) ?? {};
      for (const [room, position] of Object.entries(stored)) {
        if (typeof position === 'string') this.#last.set(room, position);
      }
    } catch (cause) {
      this.failed(cause);
    }
  }

  /** Writes the newest state; while a write is under way, once more after it. */
  async #write(): Promise<void> {
    this.#changed = true;
    if (!this.storage || this.#writing) return;
    this.#writing = true;
    while (this.#changed) {
      this.#changed = false;
      try {
        await this.storage.set(Object.fromEntries(this.#last));
      } catch (cause) {
        this.failed(cause);
      }
    }
    this.#writing = false;
  }
}

/** Whether a position replaces another one: a later one of its epoch does, and any of another epoch. */
function isAfter(position: string, other: string | undefined): boolean {
  if (other === undefined) return true;
  const [next, last] = [parsed(position), parsed(other)];
  if (next.epoch !== last.epoch || next.number === undefined || last.number === undefined) return position !== other;
  return next.number > last.number;
}

function parsed(position: string): { epoch: string; number: bigint | undefined } {
  const dot = position.lastIndexOf('.');
  const digits = position.slice(dot + 1);
  return { epoch: position.slice(0, dot), number: /^\d+$/.test(digits) ? BigInt(digits) : undefined };
}
