import { setTimeout as sleep } from 'node:timers/promises';

import { within } from '../../clients/harness/deadline.js';
import { Connection } from './connection.js';
import { Crowd } from './crowd.js';
import { Failure } from './failure.js';
import { PUBLISH, SUBSCRIBE } from './nchan.js';
import { cpuMicros } from './process.js';
import { parseFrame, parseResponse, request, TEXT } from './wire.js';

/** As `bugle bench` does it by default: bytes of a payload, and the part of the emits that goes before to warm up. */
const [PAYLOAD_BYTES, WARM_UP] = [100, 10];
const EMIT_DEADLINE = 30_000;
/** Until the processor time of the last emit is in the kernel's account. */
const ACCOUNTED = 50;

/**
 * `bugle bench room --concurrency 1` for nchan, which has no gRPC: an emit is posted when all subscribers have received the one before.
 * The result has the fields of bugle bench that the figures of the load are read from.
 */
export async function nchanRoom(contender, load, emits) {
  try {
    const room = await Room.open(contender, load.devices);
    try {
      return await room.measured(contender.pid, emits);
    } finally {
      await room.close();
    }
  } catch (error) {
    throw new Failure(`${contender.title}, ${load.name}: ${error.message}\nits log ends:\n${contender.lastWords}`, { cause: error });
  }
}

class Room {
  #crowd;
  #publisher;
  #devices;
  #expected;
  #missing = 0;
  #complete;
  #latencies = [];

  static async open(contender, devices) {
    const room = new Room();
    room.#devices = devices;
    room.#crowd = new Crowd({ width: 16, connect: (crowd, number) => room.#subscribe(crowd, number) }, contender);
    await room.#crowd.grow(devices);
    room.#publisher = await Connection.open(contender.port, '127.0.0.1');
    return room;
  }

  async measured(pid, emits) {
    await this.#send(Math.ceil(emits / WARM_UP));
    this.#latencies = [];
    await sleep(ACCOUNTED);
    const idle = cpuMicros(pid);
    const begun = performance.now();
    await this.#send(emits);
    const milliseconds = performance.now() - begun;
    await sleep(ACCOUNTED);
    const deliveries = emits * this.#devices;
    return {
      deliveries,
      deliveries_per_second: (deliveries / milliseconds) * 1_000,
      delivery_us: { p99: percentile(corrected(this.#latencies, milliseconds / emits), 0.99) * 1_000 },
      server: { cpu_us_per_delivery: (cpuMicros(pid) - idle) / deliveries },
    };
  }

  async close() {
    this.#publisher.close();
    await this.#crowd.leave();
  }

  async #subscribe(crowd, number) {
    const connection = await crowd.open(number);
    await connection.upgrade(SUBSCRIBE);
    connection.listen(parseFrame, (message) => this.#receive(message));
    return () => connection.close();
  }

  async #send(emits) {
    for (let number = 0; number < emits; number += 1) await within(this.#emit(number), `emit ${number}`, EMIT_DEADLINE);
  }

  async #emit(number) {
    const at = performance.now();
    const body = payload(at, number);
    this.#expected = { at, body: Buffer.from(body) };
    this.#missing = this.#devices;
    const complete = new Promise((resolve) => (this.#complete = resolve));
    this.#publisher.write(request('POST', PUBLISH, { 'Content-Type': 'application/json' }, body));
    const { status } = await this.#publisher.read(parseResponse);
    this.#crowd.check();
    // 201: there are subscribers.
    if (status !== 201) throw new Error(`emit ${number} was answered with ${status}`);
    await complete;
  }

  #receive({ opcode, payload: body }) {
    if (opcode !== TEXT || !body.equals(this.#expected.body)) throw new Error(`a device received something else than the emit: ${body}`);
    this.#latencies.push(performance.now() - this.#expected.at);
    this.#missing -= 1;
    if (this.#missing === 0) this.#complete();
  }
}

/** As in `src/bench/payload.rs`, with the time in whole nanoseconds. */
export function payload(at, number) {
  const begin = `{"at":${Math.round(at * 1e6)},"n":${number},"pad":"`;
  const end = '"}';
  return `${begin}${'x'.repeat(Math.max(0, PAYLOAD_BYTES - begin.length - end.length))}${end}`;
}

/** Adds what would have been sent during a longer wait than the interval between emits, as `bugle bench` does (coordinated omission). */
export function corrected(latencies, interval) {
  const added = [];
  for (const latency of latencies) for (let left = latency - interval; left >= interval; left -= interval) added.push(left);
  return latencies.concat(added);
}

/** The smallest value that so many of all do not exceed. */
export function percentile(values, part) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)];
}
