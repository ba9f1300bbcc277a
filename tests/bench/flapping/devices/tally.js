/** What one device has heard of one load, whose messages are numbered from 0. */
export class Tally {
  /** Messages that the app was given. */
  delivered = 0;
  /** Messages that arrived again, and those that the app was given again although whoever dedupes takes each id once. */
  duplicates = 0;
  duplicatesAfterDedupe = 0;
  /** Messages that the app was given after a later one. */
  disorder = 0;
  /** Milliseconds from the emit until the app was given the message. */
  delays = [];
  /** Milliseconds from the beginning of a connection until the app was given what was emitted before it. */
  catchUps = [];
  #arrived = new Set();
  #taken = new Set();
  #latest = -1;

  /** A message has arrived. */
  arrive(number) {
    if (this.#arrived.has(number)) this.duplicates += 1;
    this.#arrived.add(number);
  }

  /** The app is given a message of this age, connected since then; whether it is the first time. */
  take({ number, emittedAt, takenAt, connectedAt }) {
    if (this.#taken.has(number)) {
      this.duplicatesAfterDedupe += 1;
      return false;
    }
    this.#taken.add(number);
    this.delivered += 1;
    this.delays.push(takenAt - emittedAt);
    if (emittedAt < connectedAt) this.catchUps.push(takenAt - connectedAt);
    if (number < this.#latest) this.disorder += 1;
    this.#latest = Math.max(this.#latest, number);
    return true;
  }
}

/** The counts of several in sum, and all their times. */
export function total(tallies) {
  const sum = (field) => tallies.reduce((soFar, tally) => soFar + tally[field], 0);
  const all = (field) => Float64Array.from(tallies.flatMap((tally) => [...tally[field]]));
  return {
    delivered: sum('delivered'),
    duplicates: sum('duplicates'),
    duplicatesAfterDedupe: sum('duplicatesAfterDedupe'),
    disorder: sum('disorder'),
    delays: all('delays'),
    catchUps: all('catchUps'),
  };
}
