import { Arrivals } from './deadline.js';
import { CLIENTS, Device, WAYS } from './device.js';
import { PythonDevice } from './python.js';

/** Every client that a test may travel with. */
export const TRAVELLERS = [...Object.keys(CLIENTS), 'python'];

/**
 * A device of any client that collects messages (the event `m`), whatever its network does. One that resumes has `seen`, the positions of
 * what it got, and shares it with the next device of its user.
 */
export class Traveller {
  /** The payload of each message. */
  messages = new Arrivals('a message');
  /** The transport at each connect. */
  connects = new Arrivals('a connect');
  /** The reason of each disconnect. */
  disconnects = new Arrivals('a disconnect');
  /** Each `bugle:resumed`. */
  resumed = new Arrivals('bugle:resumed');

  /** Begins to connect, and is closed after the test. */
  static open(context, url, options) {
    const traveller = options.client === 'python' ? new InPython(context, url, options) : new InJavaScript(url, options);
    context.after(() => traveller.close());
    return traveller;
  }

  constructor({ seen }) {
    this.seen = seen;
  }

  /** Takes a message: its payload, and of a stored one, for a device that resumes, where it stands. */
  heard(payload, kept) {
    if (this.seen && kept?.position) this.seen[kept.room] = kept.position;
    this.messages.push(payload);
  }

  recovered(told) {
    const rooms = Object.entries(told.rooms).filter(([, { position }]) => position);
    if (this.seen) for (const [room, { position }] of rooms) this.seen[room] = position;
    this.resumed.push(told);
  }
}

class InJavaScript extends Traveller {
  #device;

  constructor(url, { client, way, token, seen }) {
    super({ seen });
    const credentials = () => (seen ? { token, resume: seen } : { token });
    const inQuery = () => ({ token, ...(seen && { resume: JSON.stringify(seen) }) });
    const isOld = CLIENTS[client].tokenIn === 'query';
    const identity = isOld ? { query: inQuery() } : { auth: (send) => send(credentials()) };
    this.#device = new Device(url, { client, way, ...identity });
    this.connects = this.#device.connects;
    this.disconnects = this.#device.disconnects;
    const { socket } = this.#device;
    socket.on('m', (...args) => this.heard(...args));
    socket.on('bugle:resumed', (told) => this.recovered(told));
    socket.on('question', (question, answer) => answer(question));
    if (isOld) socket.on('reconnect_attempt', () => Object.assign(socket.io.opts.query, inQuery()));
  }

  get socket() {
    return this.#device.socket;
  }

  get transport() {
    return this.#device.transport;
  }

  /** The payload of the welcome. */
  async welcome() {
    return (await this.#device.heard('connected').next())[0];
  }

  /** Upgraded, if that is its way. */
  settled() {
    return this.#device.settled();
  }

  close() {
    this.#device.close();
  }
}

class InPython extends Traveller {
  #device;
  #welcomes = new Arrivals('the welcome');
  #events = {
    connected: ([welcome]) => this.#welcomes.push(welcome),
    'bugle:resumed': ([told]) => this.recovered(told),
    m: (payload) => this.heard(...payload),
  };
  #happenings = {
    connect: ({ transport }) => this.connects.push((this.transport = transport)),
    disconnect: ({ reason }) => this.disconnects.push(reason),
    event: ({ event, payload }) => this.#events[event]?.(payload),
  };

  constructor(context, url, { way, token, seen }) {
    super({ seen });
    const tell = (line) => this.#happenings[line.what]?.(line);
    this.#device = PythonDevice.run(context, url, WAYS[way].join(), token, { seen, tell });
  }

  welcome() {
    return this.#welcomes.next();
  }

  /** Its client upgrades before it connects. */
  async settled() {}

  close() {
    this.#device.disconnect();
  }
}
