import { now } from '../clock.js';
import { LOADS } from '../loads.js';
import { KINDS } from './kinds.js';
import { Line } from './line.js';
import { Tally } from './tally.js';

/** A device of some kind, its line, and what it hears. */
export class Device {
  tallies = new Map(LOADS.map(({ name }) => [name, new Tally()]));
  cuts = 0;
  /** How often it was connected again, and how often the server then said that nothing was lost. */
  comebacks = 0;
  wholeComebacks = 0;
  #line = new Line();
  #tookAnother;
  #isConnected = false;

  /** `tookAnother` is called with each message that it takes for the first time. */
  constructor(tookAnother) {
    this.#tookAnother = tookAnother;
  }

  /** Connects for the first time. */
  connect(kind, settings) {
    return new Promise((resolve, reject) => {
      const device = KINDS[kind]({
        ...settings,
        line: this.#line,
        arrived: (load, { number }) => this.tallies.get(load).arrive(number),
        take: (load, payload) => this.#take(load, payload),
        began: (connection) => this.#began(connection, resolve),
      });
      Promise.resolve(device).catch(reject);
    });
  }

  /** Cuts its line at each of these times, and restores it some time later. */
  flap(times, down) {
    for (const time of times) {
      setTimeout(() => this.#cut(), time - now());
      setTimeout(() => this.#line.restore(), time + down - now());
    }
  }

  #cut() {
    this.cuts += 1;
    this.#line.cut();
  }

  #take(load, { number, emittedAt }) {
    const connectedAt = this.#line.openedAt;
    const isNew = this.tallies.get(load).take({ number, emittedAt, takenAt: now(), connectedAt });
    if (isNew) this.#tookAnother();
  }

  #began({ whole }, connected) {
    if (this.#isConnected) {
      this.comebacks += 1;
      if (whole) this.wholeComebacks += 1;
    }
    this.#isConnected = true;
    connected();
  }
}
