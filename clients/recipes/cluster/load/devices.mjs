// Devices of one kind, in a process of their own, which main.mjs forks and asks. Each is an official client that resumes as the main
// README's "Coming back" has it.
import { Agent } from 'node:http';

import jwt from 'jsonwebtoken';
import { io } from 'socket.io-client';

const { JWT_SECRET } = process.env;
const { url, transports, first, count, groups } = JSON.parse(process.argv[2]);
/** Devices that begin to connect in a second. */
const PACE = 100;

class Device {
  /** By room, the position that it has seen: what it resumes from. */
  #seen = {};
  /** When each message came, by its key. */
  #arrived = new Map();
  #expected = [];
  #twice = 0;
  #disordered = 0;
  /** Rooms that it was told not to be recovered. */
  #told = 0;
  /** How long it was without a connection, each time, in milliseconds. */
  #away = [];
  #lostAt;
  /** Attempts to connect that failed. */
  #failed = 0;
  isConnected = false;

  constructor(number) {
    this.user = `device-${number}`;
    this.group = `group:${number % groups}`;
    const token = jwt.sign({ sub: this.user, group: `${number % groups}` }, JWT_SECRET, { algorithm: 'HS256', expiresIn: '1h' });
    // An address of its own, as devices have: nginx chooses the node by it.
    const localAddress = `127.1.${(number >> 8) & 255}.${number & 255}`;
    const agent = new Agent({ keepAlive: true, localAddress });
    const socket = io(url, { transports, agent, forceNew: true, auth: (send) => send({ token, resume: this.#seen }) });
    socket.on('message', ({ key }, kept) => this.#take(key, kept));
    socket.on('bugle:resumed', ({ rooms }) => this.#resumed(rooms));
    socket.on('connect_error', () => (this.#failed += 1));
    socket.on('disconnect', () => {
      this.#lostAt = Date.now();
      this.isConnected = false;
    });
  }

  #take(key, kept) {
    if (this.#arrived.has(key)) {
      this.#twice += 1;
      return;
    }
    this.#arrived.set(key, Date.now());
    if (!kept?.position) return;
    if (!isAfter(kept.position, this.#seen[kept.room])) this.#disordered += 1;
    this.#seen[kept.room] = kept.position;
  }

  /** It is connected, and has what it missed. */
  #resumed(rooms) {
    for (const [room, { recovered, position }] of Object.entries(rooms)) {
      if (!recovered && this.#seen[room]) this.#told += 1;
      if (position && (!recovered || isAfter(position, this.#seen[room]))) this.#seen[room] = position;
    }
    if (this.#lostAt) this.#away.push(Date.now() - this.#lostAt);
    this.#lostAt = undefined;
    this.isConnected = true;
  }

  expect(rooms) {
    this.#expected = [...(rooms[`user:${this.user}`] ?? []), ...(rooms[this.group] ?? [])];
  }

  get missing() {
    return this.#expected.filter(([key]) => !this.#arrived.has(key)).length;
  }

  get result() {
    const came = this.#expected.filter(([key]) => this.#arrived.has(key));
    return {
      away: this.isConnected ? this.#away : [...this.#away, Infinity],
      delays: came.map(([key, answered]) => this.#arrived.get(key) - answered),
      disordered: this.#disordered,
      failed: this.#failed,
      lost: this.missing,
      told: this.#told,
      twice: this.#twice,
    };
  }
}

/** Whether a position is after another one of the same epoch, or of another epoch. */
function isAfter(position, other) {
  if (other === undefined) return true;
  const [epoch, number] = position.split('.');
  const [otherEpoch, otherNumber] = other.split('.');
  return epoch !== otherEpoch || BigInt(number) > BigInt(otherNumber);
}

const devices = [];
const starting = setInterval(() => {
  devices.push(new Device(first + devices.length));
  if (devices.length === count) clearInterval(starting);
}, 1_000 / PACE);

const answers = {
  unconnected: () => count - devices.filter(({ isConnected }) => isConnected).length,
  expect: ({ rooms }) => devices.forEach((device) => device.expect(rooms)) ?? 0,
  missing: () => devices.filter(({ missing, isConnected }) => missing > 0 || !isConnected).length,
  results: () => devices.map(({ result }) => result),
};
process.on('disconnect', () => process.exit());
process.on('message', (question) => process.send(answers[question.ask](question)));
