import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** The network between devices and a server: a TCP proxy that can be cut. */
export class Network {
  #target;
  #proxy;
  #streams = new Set();
  #port = 0;

  static async before(context, port) {
    const network = new Network(port);
    await network.restore();
    context.after(() => network.cut());
    return network;
  }

  constructor(port) {
    this.#target = port;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Ends all connections, and lets none through. */
  async cut() {
    const closed = this.#proxy.listening ? once(this.#proxy, 'close') : Promise.resolve();
    this.#proxy.close();
    for (const stream of this.#streams) stream.destroy();
    await closed;
  }

  /** Lets connections through, at the same address as before. */
  async restore() {
    this.#proxy = createServer((stream) => this.#join(stream, connect(this.#target, '127.0.0.1')));
    this.#proxy.listen(this.#port, '127.0.0.1');
    await once(this.#proxy, 'listening');
    this.#port = this.#proxy.address().port;
  }

  #join(...ends) {
    const [left, right] = ends;
    for (const end of ends) {
      this.#streams.add(end);
      end.on('error', () => {}).on('close', () => {
        this.#streams.delete(end);
        ends.forEach((other) => other.destroy());
      });
    }
    left.pipe(right).pipe(left);
  }
}
