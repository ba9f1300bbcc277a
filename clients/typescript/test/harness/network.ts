import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

import { onTestFinished } from 'vitest';

/** The network between devices and a server: a TCP proxy that can be cut. */
export class Network {
  #proxy!: Server;
  #streams = new Set<Socket>();
  #port = 0;
  /** How many connections were let through. */
  passed = 0;

  static async before(port: number): Promise<Network> {
    const network = new Network(port);
    await network.restore();
    onTestFinished(() => network.cut());
    return network;
  }

  private constructor(private target: number) {}

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Ends all connections, and lets none through. */
  async cut(): Promise<void> {
    const closed = this.#proxy.listening ? once(this.#proxy, 'close') : Promise.resolve();
    this.#proxy.close();
    this.drop();
    await closed;
  }

  /** Ends all connections with a reset; new ones are let through. A device between two polls has none, and notices nothing. */
  drop(): void {
    for (const stream of this.#streams) stream.resetAndDestroy();
  }

  /** Lets connections through, at the same address as before; to another server if its port is given. */
  async restore(target = this.target): Promise<void> {
    this.target = target;
    this.#proxy = createServer((stream) => {
      this.passed += 1;
      this.#join(stream, connect(this.target, '127.0.0.1'));
    });
    this.#proxy.listen(this.#port, '127.0.0.1');
    await once(this.#proxy, 'listening');
    this.#port = (this.#proxy.address() as AddressInfo).port;
  }

  #join(left: Socket, right: Socket): void {
    for (const [end, other] of [[left, right], [right, left]] as const) {
      this.#streams.add(end);
      end.on('error', () => {}).on('close', () => {
        this.#streams.delete(end);
        other.destroy();
      });
    }
    left.pipe(right).pipe(left);
  }
}
