import { once } from 'node:events';
import { connect } from 'node:net';

import { browserRequest, parseFrame, parseResponse, upgradeRequest } from './wire.js';

const HOST = '127.0.0.1';
const NOTHING = Buffer.alloc(0);
/** An address has no more than 28,000 ports of its own, and a server may limit the connections of one address. */
const PER_ADDRESS = 250;

/** The source address of a device: 127.1.x.y, the same for 250 of them. */
export function addressOf(number) {
  const block = Math.floor(number / PER_ADDRESS);
  return `127.1.${1 + Math.floor(block / 250)}.${1 + (block % 250)}`;
}

/** A TCP connection to a server, which parses what it receives on demand. */
export class Connection {
  #socket;
  #received = NOTHING;
  /** The read under way: `{ parse, resolve, reject }`. */
  #reading;
  #listener;
  /** Called once if the connection ends before `close`. */
  onLost = () => {};
  #isClosed = false;

  static async open(port, localAddress) {
    const socket = connect({ host: HOST, port, localAddress, noDelay: true });
    await once(socket, 'connect');
    return new Connection(socket);
  }

  constructor(socket) {
    this.#socket = socket;
    socket.on('data', (bytes) => this.#receive(bytes));
    socket.on('error', () => {});
    socket.on('close', () => this.#end(new Error('the server closed the connection')));
  }

  write(bytes) {
    this.#socket.write(bytes);
  }

  /** Waits for the first item that `parse` finds in what was received; one read at a time. */
  read(parse) {
    if (this.#isClosed) return Promise.reject(new Error('the connection is closed'));
    return new Promise((resolve, reject) => {
      this.#reading = { parse, resolve, reject };
      this.#receive(NOTHING);
    });
  }

  /** Passes every further item to a function, instead of to `read`. */
  listen(parse, listener) {
    this.#listener = { parse, listener };
    this.#receive(NOTHING);
  }

  /** Sends a whole request; the body of the answer, which must have the status 200. */
  async ask(method, path, body) {
    this.write(browserRequest(method, path, body));
    const answer = await this.read(parseResponse);
    if (answer.status !== 200) throw new Error(`${method} ${path} was answered with ${answer.status} ${answer.body}`);
    return answer.body;
  }

  async upgrade(path) {
    this.write(upgradeRequest(path));
    const { status, body } = await this.read(parseResponse);
    if (status !== 101) throw new Error(`the upgrade of ${path} was answered with ${status} ${body}`);
  }

  /** Reads WebSocket messages until one begins with this text. */
  async readMessage(beginning) {
    for (;;) {
      const text = (await this.read(parseFrame)).payload.toString();
      if (text.startsWith(beginning)) return text;
      // Socket.IO's CONNECT_ERROR.
      if (text.startsWith('44')) throw new Error(`the server refused the device: ${text}`);
    }
  }

  close() {
    this.#isClosed = true;
    this.#socket.destroy();
  }

  #receive(bytes) {
    if (bytes.length > 0) this.#received = this.#received.length > 0 ? Buffer.concat([this.#received, bytes]) : bytes;
    try {
      this.#parse();
    } catch (error) {
      this.#end(error);
      this.close();
    }
  }

  #parse() {
    while (this.#received.length > 0) {
      const parse = this.#reading?.parse ?? this.#listener?.parse;
      const found = parse?.(this.#received);
      if (!found) return;
      this.#received = this.#received.length > found.length ? this.#received.subarray(found.length) : NOTHING;
      const take = this.#reading?.resolve ?? this.#listener.listener;
      this.#reading = undefined;
      take(found.item);
    }
  }

  #end(error) {
    this.#reading?.reject(error);
    this.#reading = undefined;
    if (!this.#isClosed) this.onLost(error);
    this.#isClosed = true;
  }
}
