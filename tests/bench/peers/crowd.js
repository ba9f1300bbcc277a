import { createHmac } from 'node:crypto';

import { addressOf, Connection } from './connection.js';
import { within } from '../../clients/harness/deadline.js';

/** For all devices to connect, or to leave. */
const DEADLINE = 300_000;
const TOKEN_SECONDS = 36_000;

/**
 * Devices of one kind at one server. A kind is `{ width, connect }`: `connect(crowd, number)` connects a device, of which `width` connect at
 * a time, and returns the function that takes it away.
 */
export class Crowd {
  #kind;
  #server;
  #leaves = [];
  #shared;
  #lost = 0;
  #reason;

  /** A crowd of nobody, for a server with this port and secret (HS256). */
  constructor(kind, { port, secret }) {
    this.#kind = kind;
    this.#server = { port, secret };
  }

  /** Connects devices until there are so many. */
  async grow(count) {
    const first = this.#leaves.length;
    const connect = async (index) => this.#leaves.push(await this.#kind.connect(this, first + index));
    await this.#each(count - first, connect, 'all devices connected');
  }

  async leave() {
    const leaves = this.#leaves;
    this.#leaves = [];
    await this.#each(leaves.length, (index) => leaves[index](), 'all devices gone');
  }

  /** Throws if a device has lost its connection. */
  check() {
    if (this.#lost > 0) throw new Error(`${this.#lost} devices lost their connections, the first one because ${this.#reason}`);
  }

  /** Opens a connection from the device's address. */
  async open(number) {
    const connection = await Connection.open(this.#server.port, addressOf(number));
    connection.onLost = ({ message }) => this.lose(message);
    return connection;
  }

  lose(reason) {
    this.#reason ??= reason;
    this.#lost += 1;
  }

  /** A connection for requests of this device and the next ones of its address, until `grow` or `leave` is done. One user at a time. */
  async shared(number) {
    const address = addressOf(number);
    if (this.#shared?.address !== address) {
      this.#release();
      this.#shared = { address, connection: await this.open(number) };
    }
    return this.#shared.connection;
  }

  token(number) {
    return tokenOf(`device-${number}`, this.#server.secret);
  }

  async #each(count, task, what) {
    let next = 0;
    const worker = async () => {
      while (next < count) {
        next += 1;
        await task(next - 1);
      }
    };
    try {
      await within(Promise.all(Array.from({ length: Math.min(this.#kind.width, count) }, worker)), what, DEADLINE);
    } finally {
      this.#release();
    }
  }

  #release() {
    this.#shared?.connection.close();
    this.#shared = undefined;
  }
}

/** A JWT (HS256) for a user. */
export function tokenOf(user, secret) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1_000) + TOKEN_SECONDS;
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: user, exp })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
