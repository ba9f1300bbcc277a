import { Agent } from 'node:http';
import { connect } from 'node:net';

import { now } from '../clock.js';

/** Nothing listens there: tcpmux is out of use, and only root could take its port. */
const REFUSING_PORT = 1;

/**
 * A device's own way to the network, which can be cut.
 *
 * It resets the device's own stream and lets the system refuse the next ones. A proxy in between would do both, too, but it
 * would take its share of two cores and of each delay, and would acknowledge what no device has read.
 */
export class Line extends Agent {
  /** When the device last began a connection that was not refused. */
  openedAt = 0;
  #streams = new Set();
  #isCut = false;

  createConnection({ host, port }) {
    if (!this.#isCut) this.openedAt = now();
    const stream = connect({ host, port: this.#isCut ? REFUSING_PORT : port });
    this.#streams.add(stream);
    stream.once('close', () => this.#streams.delete(stream));
    return stream;
  }

  /** Resets what is connected, and lets nothing through. */
  cut() {
    this.#isCut = true;
    for (const stream of this.#streams) stream.resetAndDestroy();
  }

  restore() {
    this.#isCut = false;
  }
}
