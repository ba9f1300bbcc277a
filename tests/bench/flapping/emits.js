import { setTimeout as delay } from 'node:timers/promises';

import { now } from './clock.js';
import { ROOM, userOf } from './loads.js';

/** How long the server may take to answer the last emits. */
const ANSWERING = 5_000;

/** Sends the loads by one EmitStream. */
export class Emits {
  sent = 0;
  answered = 0;
  /** Those that were to be stored, and of them the ones whose receipt says so. What a room's history keeps, no receipt tells. */
  storable = 0;
  stored = 0;
  /** Why emits were refused, each reason once, and how many were. */
  refused = 0;
  reasons = new Set();
  /** Set when the server ends the stream before it is closed. */
  failure;
  #stream;
  #ended;
  #devices;
  #options;

  /** `options` holds those of the emits of each load, by its name. */
  constructor(backend, devices, options) {
    this.#devices = devices;
    this.#options = options;
    this.#stream = backend.emitStream();
    this.#stream.on('data', ({ result }) => this.#count(result));
    this.#stream.on('error', (error) => (this.failure = error.message));
    this.#ended = new Promise((resolve) => this.#stream.on('end', resolve).on('error', resolve));
  }

  /** From the start on, in every interval one message to each user, and half an interval later one to the room. */
  async send({ start, messages, interval }) {
    for (let number = 0; number < messages; number += 1) {
      await delay(start + number * interval - now());
      for (let device = 0; device < this.#devices; device += 1) {
        this.#emit(number, { user_id: userOf(device), event: 'note', options: this.#options.user });
      }
      await delay(start + (number + 0.5) * interval - now());
      this.#emit(number, { room: ROOM, event: 'price', options: this.#options.room });
    }
  }

  /** Waits for the answers, too: a device may have a message before its receipt is here. */
  async end() {
    this.#stream.end();
    await Promise.race([this.#ended, delay(ANSWERING, undefined, { ref: false })]);
  }

  #emit(number, emit) {
    this.sent += 1;
    if (emit.options?.store) this.storable += 1;
    const json = JSON.stringify({ number, emittedAt: now() });
    this.#stream.write({ correlation_id: `${this.sent}`, emit: { ...emit, json } });
  }

  #count({ receipt, error }) {
    this.answered += 1;
    if (receipt?.stored) this.stored += 1;
    if (!error) return;
    this.refused += 1;
    this.reasons.add(`${error.code}: ${error.message}`);
  }
}
