/** The shortest time between two `typing:start` events, in milliseconds. Bugle ends typing 5 s after the last one. */
const REPEAT = 2_500;
/** The time after the last `typing:start` at which the other user counts as idle even without `typing:stop`, in milliseconds. */
const LAPSE = 7_000;

/** The typing state of both users of a conversation. */
export class Typing {
  #toldAt: number | undefined;
  #isTyping = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly tell: (isTyping: boolean) => void,
    private readonly changed: () => void,
  ) {}

  /** Whether the other user is typing. */
  get isTyping(): boolean {
    return this.#isTyping;
  }

  /** Records a key press of this user. */
  typed(): void {
    const now = Date.now();
    // `now` is smaller after the clock was set back.
    if (this.#toldAt !== undefined && now - this.#toldAt < REPEAT && now >= this.#toldAt) return;
    this.#toldAt = now;
    this.tell(true);
  }

  /** Records that this user has sent the message or stopped typing. */
  ended(): void {
    if (this.#toldAt === undefined) return;
    this.#toldAt = undefined;
    this.tell(false);
  }

  /** Sets whether the other user is typing. */
  set(isTyping: boolean): void {
    clearTimeout(this.#timer);
    if (isTyping) this.#timer = setTimeout(() => this.set(false), LAPSE);
    if (this.#isTyping === isTyping) return;
    this.#isTyping = isTyping;
    this.changed();
  }

  /** Forgets both states when the connection is lost. */
  reset(): void {
    this.#toldAt = undefined;
    this.set(false);
  }
}
