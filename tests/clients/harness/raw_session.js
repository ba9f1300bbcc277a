import { once } from 'node:events';

import { WebSocket } from 'ws';

import { Arrivals, within } from './deadline.js';
import { exchange } from './polling.js';

/** A device that polls and upgrades step by step, in revision 3 or 4 of Engine.IO. */
export class RawSession {
  /** Messages on the WebSocket, once there is one; pings of Engine.IO are answered. */
  received = new Arrivals('a message on the WebSocket');
  #query;
  #socket;

  static async open(context, url, { protocol, token, resume }) {
    const session = new RawSession(url, protocol);
    await session.#open(token, resume);
    context.after(() => session.close());
    return session;
  }

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    this.#query = { EIO: protocol };
  }

  async #open(token, resume) {
    const isOld = this.protocol === 3;
    if (isOld) Object.assign(this.#query, { b64: 1, token, ...(resume && { resume: JSON.stringify(resume) }) });
    const [handshake] = await this.poll();
    this.#query.sid = JSON.parse(handshake.slice(1)).sid;
    if (!isOld) await this.post(`40${JSON.stringify({ token, resume })}`);
  }

  #address(transport) {
    return `${this.url}/socket.io/?${new URLSearchParams({ ...this.#query, transport })}`;
  }

  /** The packets that a poll brings. */
  async poll() {
    const { status, text } = await exchange(this.#address('polling'));
    if (status !== 200) throw new Error(`the poll was answered ${status}: ${text}`);
    return this.protocol === 3 ? splitByLengths(text) : text.split('\x1e');
  }

  /** Polls until there is such a packet; all packets. */
  async pollFor(text) {
    const packets = [];
    do packets.push(...(await this.poll()));
    while (!packets.some((packet) => packet.includes(text)));
    return packets;
  }

  /** Sends a packet. */
  async post(packet) {
    const body = this.protocol === 3 ? `${packet.length}:${packet}` : packet;
    const headers = { 'content-type': 'text/plain;charset=UTF-8' };
    const { status, text } = await exchange(this.#address('polling'), { method: 'POST', headers, body });
    if (status !== 200) throw new Error(`the POST was answered ${status}: ${text}`);
  }

  /** Opens a WebSocket, and has its probe answered. */
  async probe() {
    this.#socket = new WebSocket(this.#address('websocket').replace(/^http/, 'ws'));
    await within(once(this.#socket, 'open'), 'the WebSocket');
    this.#socket.on('message', (bytes) => this.#hear(`${bytes}`)).on('error', () => {});
    this.#socket.send('2probe');
    const answer = await this.received.next();
    if (answer !== '3probe') throw new Error(`the probe was answered ${answer}`);
  }

  #hear(text) {
    if (text === '2') this.#socket.send('3');
    else this.received.push(text);
  }

  /** Goes over to the WebSocket. */
  upgrade() {
    this.#socket.send('5');
  }

  close() {
    this.#socket?.close();
  }
}

/** `2:404:4abc` */
function splitByLengths(text) {
  const packets = [];
  let rest = text;
  while (rest !== '') {
    const [length] = rest.split(':', 1);
    const begin = length.length + 1;
    packets.push(rest.slice(begin, begin + Number(length)));
    rest = rest.slice(begin + Number(length));
  }
  return packets;
}
