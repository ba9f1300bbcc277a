import { createRequire } from 'node:module';

import { Arrivals, within } from './deadline.js';

const require = createRequire(import.meta.url);

/** The official clients: how each is made, where its token goes, and which event tells of a refusal. */
export const CLIENTS = {
  '2.x': { io: require('socket.io-client-2'), tokenIn: 'query', refusal: 'error' },
  '3.x': { io: require('socket.io-client-3').io, tokenIn: 'auth', refusal: 'connect_error' },
  '4.x': { io: require('socket.io-client').io, tokenIn: 'auth', refusal: 'connect_error' },
};

/** How a client may be connected. The last one begins with polling and upgrades. */
export const WAYS = {
  polling: ['polling'],
  websocket: ['websocket'],
  upgrade: ['polling', 'websocket'],
};

/** Every client in every way. */
export const KINDS = Object.keys(CLIENTS).flatMap((client) => Object.keys(WAYS).map((way) => ({ client, way })));

const EVENTS = ['connected', 'note', 'bugle:disconnect', 'bugle:token_expiring'];

/** An official client, and what it has heard. */
export class Device {
  /** Each connect, first or again. */
  connects = new Arrivals('connect');
  /** The reason of each disconnect. */
  disconnects = new Arrivals('disconnect');
  /** The message of each refusal by Bugle. */
  refusals = new Arrivals('a refusal');
  /** The error of each attempt that failed before Bugle saw a token. */
  failures = new Arrivals('a failed attempt');
  /** The number of each attempt to come back. */
  attempts = new Arrivals('an attempt to come back');
  /** Text messages as they came over the wire. */
  wire = new Arrivals('a message on the wire');
  #heard = new Map(EVENTS.map((event) => [event, new Arrivals(`the event ${event}`)]));
  #upgraded;

  constructor(url, { client = '4.x', way = 'websocket', token, tokenIn, ...options }) {
    const { io, tokenIn: usual } = CLIENTS[client];
    this.client = client;
    this.way = way;
    this.socket = io(url, {
      transports: WAYS[way],
      forceNew: true,
      reconnectionDelay: 200,
      reconnectionDelayMax: 1_000,
      ...credentials(token, tokenIn ?? usual),
      ...options,
    });
    this.#listen();
  }

  /** Connects, upgraded if that is its way, and closes after the test. */
  static async connect(context, url, options) {
    const device = Device.open(context, url, options);
    await device.ready();
    return device;
  }

  /** Begins to connect, and closes after the test. */
  static open(context, url, options) {
    const device = new Device(url, options);
    context.after(() => device.close());
    return device;
  }

  #listen() {
    const { socket, client } = this;
    const manager = socket.io;
    socket.on('connect', () => this.connects.push(this.transport));
    socket.on('disconnect', (reason) => this.disconnects.push(reason));
    // Errors of the transport have a type, those that the server sends have none. (The server's is an object for 2.x clients
    // too, where Socket.IO's own server sends them the text alone.)
    const failed = (error) => (error.type ? this.failures.push(error) : this.refusals.push(error.message));
    for (const event of new Set(['connect_error', CLIENTS[client].refusal])) socket.on(event, failed);
    (client === '2.x' ? socket : manager).on('reconnect_attempt', (number) => this.attempts.push(number));
    for (const [event, arrivals] of this.#heard) socket.on(event, (...args) => arrivals.push(args));
    this.#upgraded = new Promise((resolve) => {
      manager.on('open', () => {
        manager.engine.once('upgrade', resolve);
        manager.engine.on('data', (data) => typeof data === 'string' && this.wire.push(data));
      });
    });
  }

  /** The transport that is in use. */
  get transport() {
    return this.socket.io.engine.transport.name;
  }

  /** Connected and greeted, and upgraded if that is its way; its welcome. */
  async ready() {
    await this.connects.next();
    const [welcome] = await this.heard('connected').next();
    await this.settled();
    this.welcome = welcome;
  }

  /** Upgraded, if that is its way. */
  async settled() {
    if (this.way !== 'upgrade') return;
    await within(this.#upgraded, 'the upgrade');
    // The client is done first. An answer to what follows on the WebSocket says that the server is too.
    await this.ask('upgraded?');
  }

  /** The arguments of each occurrence of an event. */
  heard(event) {
    return this.#heard.get(event);
  }

  /** The answer to an event that the device sends. */
  ask(event, ...args) {
    const answer = new Promise((resolve) => this.socket.emit(event, ...args, resolve));
    return within(answer, `the acknowledgement of ${event}`);
  }

  close() {
    this.socket.close();
  }
}

function credentials(token, place) {
  if (token === undefined) return {};
  if (place === 'header') return { extraHeaders: { authorization: token } };
  return { [place]: { token } };
}
