/** How often the other user is told that this one types, in milliseconds. Bugle ends it 5 s after the last time. */
const REPEAT = 2_500;
/** How long the other user counts as typing after the last word of it, in milliseconds: if Bugle's word of the end is lost. */
const LAPSE = 7_000;

/** Who types in a conversation: this user, of which the other one is told now and then, and the other user. */
export class Typing {
  #toldAt: number | undefined;
  #isTyping = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly tell: (isTyping: boolean) => void,
    private readonly changed: () => void,
  ) {}

  /** Whether the other user types. */
  get isTyping(): boolean {
    return this.#isTyping;
  }

  /** This user has pressed a key. */
  typed(): void {
    const now = Date.now();
    // A clock that was set back must not end it.
    if (this.#toldAt !== undefined && now - this.#toldAt < REPEAT && now >= this.#toldAt) return;
    this.#toldAt = now;
    this.tell(true);
  }

  /** This user has sent the message, or does not want to. */
  ended(): void {
    if (this.#toldAt === undefined) return;
    this.#toldAt = undefined;
    this.tell(false);
  }

  /** The other user types, or has stopped. */
  set(isTyping: boolean): void {
    clearTimeout(this.#timer);
    if (isTyping) this.#timer = setTimeout(() => this.set(false), LAPSE);
    if (this.#isTyping === isTyping) return;
    this.#isTyping = isTyping;
    this.changed();
  }

  /** There is no connection: nobody is known to type. */
  reset(): void {
    this.#toldAt = undefined;
    this.set(false);
  }
}
