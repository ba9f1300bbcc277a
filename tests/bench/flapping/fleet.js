import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { within } from '../../clients/harness/deadline.js';
import { total } from './devices/tally.js';
import { LOADS } from './loads.js';

const PROCESS = fileURLToPath(new URL('devices/process.js', import.meta.url));
/** So many devices leave a process most of its time, and their delays are not its own. */
const DEVICES_PER_PROCESS = 125;
const CONNECTING = 60_000;

/** All devices, in processes of their own. */
export class Fleet {
  #groups;
  #flapping;

  constructor(count) {
    const groups = Math.ceil(count / DEVICES_PER_PROCESS);
    this.#groups = Array.from({ length: groups }, (_, index) => new Group(portion(index, groups, count)));
  }

  /** Connects a device of this kind for each token. */
  async connect({ tokens, ...settings }) {
    const connected = this.#groups.map((group) => group.ask('connect', { tokens: group.own(tokens), ...settings }));
    await within(Promise.all(connected), 'connecting all devices', CONNECTING);
  }

  /** Begins to cut the devices off, each at its own times. */
  flap({ phases, ...settings }) {
    this.#flapping = Promise.all(this.#groups.map((group) => group.ask('flap', { phases: group.own(phases), ...settings })));
    // Who waits for it, later, hears of a failure.
    this.#flapping.catch(() => {});
  }

  /** Waits until every device has heard everything, or the time is over. */
  async complete(milliseconds) {
    const timer = new AbortController();
    const over = delay(milliseconds, undefined, { signal: timer.signal }).catch(() => {});
    try {
      await Promise.race([this.#flapping, over]);
    } finally {
      timer.abort();
    }
  }

  /** What all devices have heard, by load, and how often they were cut off and came back. */
  async report() {
    const reports = await Promise.all(this.#groups.map((group) => group.ask('report')));
    const sum = (field) => reports.reduce((soFar, report) => soFar + report[field], 0);
    const heard = ({ name }) => [name, total(reports.map(({ loads }) => loads[name]))];
    return {
      cuts: sum('cuts'),
      comebacks: sum('comebacks'),
      wholeComebacks: sum('wholeComebacks'),
      loads: Object.fromEntries(LOADS.map(heard)),
    };
  }

  async end() {
    await Promise.all(this.#groups.map((group) => group.end()));
  }
}

/** The devices from the first to before the last of a part. */
function portion(index, parts, count) {
  return [Math.floor((index * count) / parts), Math.floor(((index + 1) * count) / parts)];
}

/** Some devices in one process. */
class Group {
  #range;
  #process = fork(PROCESS, { serialization: 'advanced' });
  #exited = once(this.#process, 'exit');
  #answers = new Map();

  constructor(range) {
    this.#range = range;
    this.#process.on('message', ({ command, answer }) => this.#answers.get(command)(answer));
  }

  /** The part of a list with an entry for each device. */
  own(list) {
    return list.slice(...this.#range);
  }

  /** The answer to a command. */
  async ask(command, settings) {
    const answer = new Promise((resolve) => this.#answers.set(command, resolve));
    const exited = this.#exited.then(([code]) => Promise.reject(new Error(`a process of devices ended with exit code ${code}`)));
    this.#process.send({ command, ...settings });
    return Promise.race([answer, exited]);
  }

  async end() {
    this.#process.kill();
    await this.#exited;
  }
}
