import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { expect, onTestFinished, test } from 'vitest';

import { Arrivals, within } from './harness/deadline.js';
import { Device } from './harness/device.js';
import { Server } from './harness/server.js';

/** Where the server has no Socket.IO, as behind a proxy that does not let it through. */
const NOWHERE = { path: '/nowhere', restAfter: 1 };

test('retained values come over REST while the socket cannot be opened', async () => {
  const server = await Server.start();
  await server.backend.emit('1', 'balance', { amount: '100.50' }, { retain: true });
  await server.backend.emit('1', 'plain', 'is gone');
  const { client, messages } = new Device({ url: server.url, token: () => server.token('1'), ...NOWHERE });
  const handled = new Arrivals<unknown>('a handled value');
  client.on('balance', handled.push);
  expect(await messages.next()).toEqual({ event: 'balance', payload: { amount: '100.50' }, room: 'user:1', source: 'rest' });
  expect(await handled.next()).toEqual({ amount: '100.50' });
  expect(client.isConnected).toBe(false);
});

test('over REST a value is handed again when it has changed, and only then', async () => {
  const server = await Server.start();
  await server.backend.emit('1', 'balance', 1, { retain: true });
  const asked = new Arrivals<void>('a question for a token');
  const token = () => {
    asked.push();
    return server.token('1');
  };
  const { messages } = new Device({ url: server.url, token, ...NOWHERE, restInterval: 5, retryDelay: 60_000, retryDelayMax: 60_000 });
  expect(await messages.next()).toMatchObject({ payload: 1 });
  asked.drain();
  // Two questions more: the answer to the first of them has been handed by then, were it handed.
  await asked.take(3);
  await server.backend.emit('1', 'balance', 2, { retain: true });
  expect(await messages.next()).toMatchObject({ payload: 2 });
});

test('a request over REST that Bugle refuses is reported, and made again', async () => {
  const server = await Server.start();
  await server.backend.emit('1', 'balance', 1, { retain: true });
  let asked = 0;
  const token = () => ((asked += 1) < 3 ? 'no token' : server.token('1'));
  const { messages, errors } = new Device({ url: server.url, token, ...NOWHERE, restInterval: 5, retryDelay: 60_000, retryDelayMax: 60_000 });
  expect(await errors.next()).toMatchObject({ code: 'retained', message: '/bugle/retained answered 401' });
  expect(await messages.next()).toMatchObject({ payload: 1 });
});

test('what REST has not answered when the socket is open is not handed: the socket brings what is newer', async () => {
  const server = await Server.start();
  await server.backend.emit('1', 'balance', 1, { retain: true });
  const gateway = await SlowRest.before(server.url);
  const device = new Device({ url: gateway.url, token: server.token('1'), restAfter: 1, socketOptions: { transports: ['polling'] } });
  await gateway.asked.next();
  gateway.letSocketsThrough = true;
  await device.connected();
  await gateway.givenUp.next();
  expect(await device.messages.next()).toEqual({ event: 'balance', payload: 1, source: 'socket' });
});

/** A gateway that never answers REST, and lets no sockets through until it is told to. */
class SlowRest {
  readonly asked = new Arrivals<void>('a request over REST');
  readonly givenUp = new Arrivals<void>('a request that was given up');
  letSocketsThrough = false;
  readonly #server;

  static async before(target: string): Promise<SlowRest> {
    const gateway = new SlowRest(target);
    await within(once(gateway.#server, 'listening'), 'the gateway');
    return gateway;
  }

  private constructor(target: string) {
    this.#server = createServer((request, response) => {
      if (request.url === '/bugle/retained') {
        this.asked.push();
        response.on('close', this.givenUp.push);
      } else if (this.letSocketsThrough) {
        passOn(target, request, response);
      } else {
        response.writeHead(503).end();
      }
    }).listen(0, '127.0.0.1');
    onTestFinished(() => {
      this.#server.close();
      this.#server.closeAllConnections();
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
}

function passOn(target: string, asked: IncomingMessage, answering: ServerResponse): void {
  const passed = request(target + asked.url, { method: asked.method, headers: asked.headers }, (answer) => {
    answering.writeHead(answer.statusCode!, answer.headers);
    answer.pipe(answering);
  });
  passed.on('error', () => answering.destroy());
  answering.on('close', () => passed.destroy());
  asked.pipe(passed);
}
