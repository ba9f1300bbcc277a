import { randomInt, randomUUID } from 'node:crypto';
import { once } from 'node:events';

import { within } from '../../clients/harness/deadline.js';
import { CLIENTS } from '../../clients/harness/device.js';
import { RestClient } from './rest.js';

const { io } = CLIENTS['4.x'];
const userOf = (number) => `user-${number}`;

/** Users who write to each other, and their tokens. */
export class Users {
  #tokens;

  constructor(bugle, count) {
    this.#tokens = Array.from({ length: count }, (_, number) => bugle.token(userOf(number)));
  }

  token(number) {
    return this.#tokens[number];
  }

  any() {
    return randomInt(this.#tokens.length);
  }

  /** The id of any user but this one. */
  anyBut(number) {
    const { length } = this.#tokens;
    return userOf((number + randomInt(1, length)) % length);
  }
}

const clientMessageId = (isKeyed) => (isKeyed ? { clientMessageId: randomUUID() } : {});

/** Sends over REST, each time as another user. */
export class RestSender {
  #client;
  #users;

  static async open(bugle, users) {
    const sender = new RestSender();
    sender.#client = await RestClient.open(bugle.port);
    sender.#users = users;
    return sender;
  }

  /** Sends a message to any user, and waits for the answer. Fails if it is refused. */
  async send(content, isKeyed) {
    const own = this.#users.any();
    const message = { receiverId: this.#users.anyBut(own), content, ...clientMessageId(isKeyed) };
    await this.#client.post(this.#users.token(own), message);
  }

  close() {
    this.#client.close();
  }
}

/** Sends with the official client, as one user. */
export class SocketSender {
  #socket;
  #users;
  #own;

  static async open(bugle, users, number) {
    const sender = new SocketSender();
    sender.#users = users;
    sender.#own = number;
    sender.#socket = io(bugle.url, { transports: ['websocket'], forceNew: true, auth: { token: users.token(number) } });
    await within(once(sender.#socket, 'connected'), 'the event connected');
    return sender;
  }

  /** Sends a message to any user, and waits for the acknowledgement. Fails if it is refused. */
  async send(content, isKeyed) {
    const message = { receiverId: this.#users.anyBut(this.#own), message: content, ...clientMessageId(isKeyed) };
    const answer = await new Promise((resolve) => this.#socket.emit('message:send', message, resolve));
    if (!answer.ok) throw new Error(`message:send was answered with ${JSON.stringify(answer)}`);
  }

  close() {
    this.#socket.close();
  }
}
