import { fileURLToPath } from 'node:url';

import { within } from '../harness/deadline.js';
import { Nginx } from '../harness/nginx.js';
import { Reference } from '../harness/reference.js';
import { Server } from '../harness/server.js';

const NGINX = fileURLToPath(new URL('../harness/nginx_plain.conf', import.meta.url));
const EXAMPLE_PORTS = { nginx: 8080, bugle: 3000 };
const STORE = { store: true };

/** What a scenario needs: a server of ours, and where it says so Node's or nginx. */
export async function startWorld(context, { keys, isCompared, isBehindNginx }) {
  const bugle = new Bugle(await Server.start(context, keys));
  const node = isCompared && (await Reference.start(context));
  const { nginx, bugle: upstream } = EXAMPLE_PORTS;
  const front = isBehindNginx && (await Nginx.before(context, NGINX, nginx, { [upstream]: bugle.port }));
  return { bugle, node, nginx: front && { port: Number(new URL(front.url).port) } };
}

/** Our server, as scenarios ask it. */
class Bugle {
  constructor(server) {
    this.server = server;
    this.backend = server.backend;
  }

  get port() {
    return this.server.port;
  }

  get url() {
    return this.server.url;
  }

  token(user) {
    return this.server.token(user);
  }

  /** Sends a message to a user; the receipt. */
  send(user, payload, options) {
    return this.backend.emit(user, 'm', { json: JSON.stringify(payload) }, options);
  }

  /** Stores and sends a message. */
  store(user, payload) {
    return this.send(user, payload, STORE);
  }

  /** Asks a device twice, and has both answers: what it was sent before is proven then, by its pong or by the poll that got the second. */
  async prove(user) {
    const ack = { mode: 'MODE_ANY', timeout: { seconds: 8 } };
    for (const question of ['"first"', '"second"']) {
      const { acks } = await this.backend.emit(user, 'question', { json: question }, { ack });
      if (!acks.some(({ outcome }) => outcome === 'OUTCOME_REPLIED')) throw new Error(`${user} does not answer: ${JSON.stringify(acks)}`);
    }
  }

  /** Waits until the user has so many connections. */
  connections(user, count, milliseconds) {
    return within(this.#counted(user, count), `${count} connections of ${user}`, milliseconds);
  }

  async #counted(user, count) {
    while ((await this.backend.getUser({ user_id: user })).connections.length !== count);
  }
}

let users = 0;

/** A user that nobody else has been. */
export function newUser() {
  users += 1;
  return `user ${users}`;
}

/** What a device that resumes has seen before its first connect; a plain one has no such thing. */
export function nothingSeen(mode) {
  return mode === 'resuming' ? {} : undefined;
}

export const CONTEXT = { mode: ['plain', 'resuming'], delay: [0, 10, 40] };
