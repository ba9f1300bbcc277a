import { setTimeout as delay } from 'node:timers/promises';

const DEADLINE = 10_000;

/** Waits for a promise, and fails with the name of what was awaited when it takes too long. */
export async function within(promise, what, milliseconds = DEADLINE) {
  const timer = new AbortController();
  const late = delay(milliseconds, undefined, { signal: timer.signal }).then(
    () => Promise.reject(new Error(`${what}: not within ${milliseconds} ms`)),
    () => new Promise(() => {}),
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
  }
}

/** What arrives, in order, for whoever awaits it. */
export class Arrivals {
  #what;
  #waiting = [];
  #wanted = [];

  constructor(what) {
    this.#what = what;
  }

  push(item) {
    const wanted = this.#wanted.shift();
    if (wanted) wanted(item);
    else this.#waiting.push(item);
  }

  /** The next one; each is given once. */
  async next(milliseconds) {
    if (this.#waiting.length > 0) return this.#waiting.shift();
    let wanted;
    const item = new Promise((resolve) => {
      wanted = resolve;
      this.#wanted.push(wanted);
    });
    try {
      return await within(item, this.#what, milliseconds);
    } catch (late) {
      this.#wanted = this.#wanted.filter((other) => other !== wanted);
      throw late;
    }
  }

  /** The next ones, as many as `count`. */
  async take(count, milliseconds) {
    const items = [];
    while (items.length < count) items.push(await this.next(milliseconds));
    return items;
  }

  /** The next one that fits; those before it are passed over. */
  async find(fits, milliseconds = DEADLINE) {
    const end = Date.now() + milliseconds;
    for (;;) {
      const item = await this.next(Math.max(end - Date.now(), 0));
      if (fits(item)) return item;
    }
  }

  /** What has arrived and nobody has taken; afterwards there is nothing. */
  drain() {
    return this.#waiting.splice(0);
  }

  /** Fails if anything arrives before the time is over: an absence has no event that could be awaited. */
  async stayEmpty(milliseconds) {
    let item;
    try {
      item = await this.next(milliseconds);
    } catch {
      return;
    }
    throw new Error(`${this.#what}: unexpected ${JSON.stringify(item)}`);
  }
}
