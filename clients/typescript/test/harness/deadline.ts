const DEADLINE = 10_000;

/** Waits for a promise, and fails with the name of what was awaited when it takes too long. */
export async function within<T>(promise: Promise<T>, what: string, milliseconds = DEADLINE): Promise<T> {
  let timer: NodeJS.Timeout;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What arrives, in order, for whoever awaits it. */
export class Arrivals<T> {
  #waiting: T[] = [];
  #wanted: ((item: T) => void)[] = [];

  constructor(private readonly what: string) {}

  push = (item: T): void => {
    const wanted = this.#wanted.shift();
    if (wanted) wanted(item);
    else this.#waiting.push(item);
  };

  /** The next one; each is given once. */
  async next(milliseconds?: number): Promise<T> {
    if (this.#waiting.length > 0) return this.#waiting.shift()!;
    let wanted!: (item: T) => void;
    const item = new Promise<T>((resolve) => {
      wanted = resolve;
      this.#wanted.push(wanted);
    });
    try {
      return await within(item, this.what, milliseconds);
    } catch (late) {
      this.#wanted = this.#wanted.filter((other) => other !== wanted);
      throw late;
    }
  }

  /** The next one that fits; those before it are passed over. */
  async find(fits: (item: T) => boolean): Promise<T> {
    const end = Date.now() + DEADLINE;
    for (;;) {
      const item = await this.next(Math.max(end - Date.now(), 0));
      if (fits(item)) return item;
    }
  }

  async take(count: number): Promise<T[]> {
    const items: T[] = [];
    while (items.length < count) items.push(await this.next());
    return items;
  }

  /** What has arrived and nobody has taken; afterwards there is nothing. */
  drain(): T[] {
    return this.#waiting.splice(0);
  }
}
