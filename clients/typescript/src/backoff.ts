/** How long to wait before the next attempt. */
export class Backoff {
  #failures = 0;

  constructor(
    /** Before the second attempt, in milliseconds. */
    private readonly first: number,
    /** The longest, in milliseconds. */
    private readonly longest: number,
  ) {}

  /** Twice as long each time, and by chance down to half of that, so that devices which were cut off together do not come back together. */
  next(): number {
    const delay = Math.min(this.longest, this.first * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return delay * (0.5 + Math.random() / 2);
  }

  reset(): void {
    this.#failures = 0;
  }
}
