// What emits: at a constant rate, whatever the answers take. A call that failed is repeated under its idempotency key.
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const { BUGLE_API_KEY } = process.env;
/** How often a failed call is repeated, and the time between, in milliseconds. */
const ATTEMPTS = 100;
const PAUSE = 100;
const DEADLINE = 5_000;
/** Codes after which a repetition would fail, too. */
const FINAL = new Set(['INVALID_ARGUMENT', 'UNAUTHENTICATED', 'PERMISSION_DENIED', 'FAILED_PRECONDITION', 'UNIMPLEMENTED', 'NOT_FOUND']);

const proto = fileURLToPath(new URL('../../../../proto', import.meta.url));
const { bugle } = grpc.loadPackageDefinition(
  loadSync('bugle/v1/notify.proto', { includeDirs: [proto], keepCase: true, longs: Number, enums: String, defaults: true }),
);

export class Backend {
  #client;
  #metadata = new grpc.Metadata();
  #timer;
  #begun = Date.now();
  #calls = new Set();
  #emitted = { stored: 0, history: 0, repeated: 0, rooms: {} };

  /** Begins to emit, `rate` stored messages and `rate` messages to groups a second. */
  constructor(address, { users, groups, rate }) {
    this.#client = new bugle.v1.Notify(address, grpc.credentials.createInsecure());
    this.#metadata.set('authorization', `Bearer ${BUGLE_API_KEY}`);
    let due = 0;
    this.#timer = setInterval(() => {
      for (const now = ((Date.now() - this.#begun) / 1_000) * rate; due < now; due += 1) {
        const user = Math.floor(Math.random() * users);
        const group = Math.floor(Math.random() * groups);
        this.#emit('stored', `user:device-${user}`, 'EmitToUser', { user_id: `device-${user}`, options: { store: true } });
        this.#emit('history', `group:${group}`, 'EmitToRoom', { room: `group:${group}`, options: {} });
      }
    }, 10);
  }

  /** Stops, waits for all answers, and returns what was emitted: counts, and by room the key of each message and when its emit was answered. */
  async stop() {
    clearInterval(this.#timer);
    await Promise.all(this.#calls);
    this.#client.close();
    return this.#emitted;
  }

  #emit(kind, room, method, request) {
    const call = this.#untilAnswered(kind, room, method, request).finally(() => this.#calls.delete(call));
    this.#calls.add(call);
  }

  async #untilAnswered(kind, room, method, request) {
    const key = randomUUID();
    request = { ...request, event: 'message', json: JSON.stringify({ key }), options: { ...request.options, idempotency_key: key } };
    const call = promisify(this.#client[method]).bind(this.#client);
    for (let attempt = 1; ; attempt += 1) {
      try {
        const { receipt } = await call(request, this.#metadata, { deadline: Date.now() + DEADLINE });
        this.#note(kind, room, key, receipt);
        return;
      } catch (error) {
        if (FINAL.has(grpc.status[error.code]) || attempt === ATTEMPTS) throw error;
        this.#emitted.repeated += 1;
        await delay(PAUSE);
      }
    }
  }

  #note(kind, room, key, { stored }) {
    if (kind === 'stored' && !stored) throw new Error(`a message to ${room} was not stored`);
    this.#emitted[kind] += 1;
    (this.#emitted.rooms[room] ??= []).push([key, Date.now()]);
  }
}
