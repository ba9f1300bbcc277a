import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/**
 * What a proxy may do to WebSockets while HTTP passes: swallow the frames that go up, down or both ways after the 101, cut the stream
 * right after the 101, answer 400 instead, or never answer.
 */
export const FAULTS = ['swallows up', 'swallows down', 'swallows both', 'cuts', 'refuses', 'hangs'];

/** How long a poll is not answered that is held, in milliseconds. */
const HELD_FOR = 100;
const END_OF_HEAD = '\r\n\r\n';
const REFUSAL = 'HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n';

/** A TCP proxy between devices and a server: so many milliseconds away, with a fault for WebSockets, and with a tunnel. */
export class Proxy {
  /** How many HTTP requests devices have sent, and how many of them asked for a WebSocket. */
  requests = 0;
  upgrades = 0;
  isTunnel = false;
  #links = new Set();
  #server;

  /** `delay`: milliseconds in each direction; a new connection takes twice as long. `fault`: one of FAULTS. */
  static async before(context, port, { delay = 0, fault } = {}) {
    const proxy = new Proxy(port, delay, fault);
    context.after(() => proxy.close());
    await once(proxy.#server, 'listening');
    return proxy;
  }

  constructor(port, delay, fault) {
    Object.assign(this, { target: port, delay, fault });
    this.#server = createServer({ allowHalfOpen: true }, (near) => this.#accept(near)).listen(0, '127.0.0.1');
  }

  get port() {
    return this.#server.address().port;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  #accept(near) {
    this.#links.add(new Link(this, near));
  }

  /** From now on accepts connections and bytes in both directions, and passes nothing on. Nobody's connection ends. */
  enterTunnel() {
    this.isTunnel = true;
  }

  /** The connections of the tunnel end on both sides, and new ones pass. */
  leaveTunnel() {
    this.isTunnel = false;
    this.cut();
  }

  /** Passes the next bytes of an answer to a poll on until so many have passed, and then ends the poll's connection. */
  cutNextAnswer(bytes) {
    this.bytesBeforeCut = bytes;
  }

  /** Ends all connections on both sides. New ones pass, unless there is a tunnel. */
  cut() {
    for (const link of this.#links) link.destroy();
    this.#links.clear();
  }

  /** Waits until the server holds a poll that came through here: for a moment it has not answered it. */
  async holdsPoll() {
    const end = Date.now() + 10_000;
    while (![...this.#links].some((link) => link.holdsPoll && Date.now() - link.polledAt > HELD_FOR)) {
      if (Date.now() > end) throw new Error('no poll is held');
      await new Promise(setImmediate);
    }
  }

  close() {
    this.#server.close();
    this.cut();
  }
}

/** A device's connection, and the one that the proxy has made for it. */
class Link {
  /** Whether the last that reached the server is a poll, and no answer has come yet. */
  holdsPoll = false;
  #answersPoll = false;
  #proxy;
  #near;
  #far;
  #isWebSocket = false;
  /** The head of the answer to a request for a WebSocket, until it is whole. */
  #head = '';
  #isOpen = false;

  constructor(proxy, near) {
    this.#proxy = proxy;
    this.#near = near;
    near.setNoDelay(true).pause().on('error', () => {});
    // Twice as long, as a handshake of TCP takes.
    this.#later(() => near.destroyed || this.#connect(), 2);
  }

  #connect() {
    this.#far = connect({ port: this.#proxy.target, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    this.#far.on('data', (bytes) => this.#down(bytes)).on('error', () => {});
    this.#near.on('data', (bytes) => this.#up(bytes));
    for (const [from, to] of [[this.#near, this.#far], [this.#far, this.#near]]) {
      from.on('end', () => this.#pass(() => to.end()));
      from.on('close', () => this.#pass(() => to.destroy()));
    }
    this.#near.resume();
  }

  #up(bytes) {
    const text = bytes.toString('latin1');
    const isRequest = /^(GET|POST) /.test(text);
    if (isRequest) this.#proxy.requests += 1;
    if (/^GET .*\r\nupgrade: websocket/is.test(text)) {
      this.#proxy.upgrades += 1;
      this.#isWebSocket = true;
      if (this.#proxy.fault === 'refuses') return this.#near.end(REFUSAL);
    } else if (this.#isWebSocket && this.#swallows('up')) {
      return;
    }
    if (this.#isWebSocket && this.#proxy.fault === 'hangs') return;
    this.#pass(() => {
      if (isRequest) {
        this.holdsPoll = text.startsWith('GET ') && !this.#isWebSocket;
        this.polledAt = Date.now();
        this.#answersPoll = false;
      }
      write(this.#far, bytes);
    });
  }

  #down(bytes) {
    this.#answersPoll ||= this.holdsPoll;
    this.holdsPoll = false;
    if (!this.#isWebSocket) return this.#pass(() => this.#answer(bytes));
    if (this.#isOpen) return this.#swallows('down') || this.#pass(() => write(this.#near, bytes));
    this.#head += bytes.toString('latin1');
    const end = this.#head.indexOf(END_OF_HEAD);
    if (end < 0) return;
    this.#isOpen = true;
    const isHeadAlone = this.#swallows('down') || this.#proxy.fault === 'cuts';
    const passes = isHeadAlone ? this.#head.slice(0, end + END_OF_HEAD.length) : this.#head;
    const cuts = this.#proxy.fault === 'cuts';
    this.#pass(() => this.#near.write(passes, 'latin1', () => cuts && this.destroy()));
  }

  #answer(bytes) {
    const left = this.#proxy.bytesBeforeCut;
    if (left === undefined || !this.#answersPoll) return write(this.#near, bytes);
    if (bytes.length < left) {
      this.#proxy.bytesBeforeCut -= bytes.length;
      return write(this.#near, bytes);
    }
    this.#proxy.bytesBeforeCut = undefined;
    this.#near.write(bytes.subarray(0, left), () => this.destroy());
  }

  #swallows(direction) {
    return [`swallows ${direction}`, 'swallows both'].includes(this.#proxy.fault);
  }

  /** Does something as late as the proxy is away, unless there is a tunnel by then. */
  #pass(step) {
    this.#later(() => this.#proxy.isTunnel || step());
  }

  #later(step, times = 1) {
    // Steps of one delay are taken in their order.
    if (this.#proxy.delay === 0) step();
    else setTimeout(step, times * this.#proxy.delay);
  }

  destroy() {
    this.#near.destroy();
    this.#far?.destroy();
  }
}

function write(stream, bytes) {
  if (stream.writable) stream.write(bytes);
}
