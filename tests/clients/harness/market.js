import assert from 'node:assert/strict';
import { after } from 'node:test';

import { Cluster } from './cluster.js';
import { Recipe } from './recipe.js';

const SCOPES = 'emit,presence,rooms';

/** The tickets recipe with its devices and its REST routes, on one node or on three, which are asked in turn. */
export class Market {
  #recipe;
  #urls;
  #turn = 0;

  /** Ends after the file. */
  static async start(nodes) {
    if (nodes === 1) {
      const recipe = await Recipe.start({ after }, 'tickets', { scopes: SCOPES });
      return new Market(recipe, [recipe.server.url]);
    }
    const cluster = await Cluster.start({ after }, 'nginx', { CLUSTER_CONFIG: '../tickets/bugle.toml', CLUSTER_SCOPES: SCOPES });
    const urls = Array.from({ length: nodes }, (_, index) => `http://${cluster.net}.${index + 1}:3000`);
    return new Market(new Recipe('tickets', cluster), [...urls, cluster.url]);
  }

  constructor(recipe, urls) {
    this.#recipe = recipe;
    this.#urls = urls;
  }

  get #url() {
    this.#turn += 1;
    return this.#urls[this.#turn % this.#urls.length];
  }

  token(...args) {
    return this.#recipe.token(...args);
  }

  /** The app on a device of this user, connected to the next node. */
  async connect(t, user) {
    const device = this.#recipe.device(t, [this.#url, this.token(user)]);
    await device.next('event', 'connected');
    return device;
  }

  /** Devices of these users, a user as often as named. */
  connectAll(t, ...users) {
    return Promise.all(users.map((user) => this.connect(t, user)));
  }

  /** Asks the next node over REST as a user: `{ status, body, headers }`. */
  async rest(user, method, path, content, headers = {}) {
    const authorization = user === undefined ? {} : { authorization: `Bearer ${this.token(user)}` };
    const body = typeof content === 'string' ? content : JSON.stringify(content);
    const answer = await fetch(`${this.#url}/api/messages${path}`, { method, body, headers: { ...authorization, ...headers } });
    const text = await answer.text();
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text), headers: answer.headers };
  }

  /** What a user gets, which is there. */
  async get(user, path) {
    const { status, body } = await this.rest(user, 'GET', path);
    assert.equal(status, 200, `${path}: ${JSON.stringify(body)}`);
    return body;
  }

  /** Sends a message over REST; the message. */
  async post(user, receiverId, content, more = {}) {
    const { status, body } = await this.rest(user, 'POST', '', { receiverId, content, ...more });
    assert.equal(status, 201, JSON.stringify(body));
    return body;
  }
}

/** The answer to an event that a device sends. */
export async function ask(device, ...event) {
  device.tell({ ask: event });
  return (await device.next('answer')).answer;
}

/** The payload of the next event of this name that a device gets. */
export async function heard(device, event) {
  return (await device.next('event', event)).payload[0];
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** Fails if this is not a whole message with these fields. */
export function assertMessage(message, expected) {
  const { id, createdAt, updatedAt, ...fields } = message;
  assert.match(id, /^[\w-]+$/);
  for (const time of [createdAt, updatedAt]) assert.match(time, TIME);
  assert.deepEqual(fields, { transactionId: null, listingId: null, isRead: false, ...expected });
}
