/** A phone in a tunnel: its connection swallows everything, a stored message is sent, and the phone comes back by a new one. */
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { Configuration } from '../../clients/harness/configuration.js';
import { Server } from '../../clients/harness/server.js';
import { Nginx, PROXY } from './proxy.js';

const require = createRequire(new URL('../../clients/package.json', import.meta.url));
const { io } = require('socket.io-client');
const WebSocket = require('ws');

/** A TCP proxy. Its connections can be made to swallow what they are sent, in both directions; the kernel acknowledges it. */
class Tunnel {
  #server;
  #swallow = [];
  #sockets = [];

  static async start(upstream) {
    const tunnel = new Tunnel();
    tunnel.#server = createServer((client) => tunnel.#pass(client, connect(upstream, '127.0.0.1')));
    tunnel.#server.listen(0, '127.0.0.1');
    await once(tunnel.#server, 'listening');
    tunnel.port = tunnel.#server.address().port;
    return tunnel;
  }

  #pass(client, server) {
    let isSwallowing = false;
    for (const [from, to] of [[client, server], [server, client]]) {
      from.on('data', (bytes) => !isSwallowing && to.write(bytes));
      from.on('error', () => {});
      from.on('close', () => !isSwallowing && to.destroy());
    }
    this.#swallow.push(() => (isSwallowing = true));
    this.#sockets.push(client, server);
  }

  /** What is open from now on swallows; new connections do not. */
  swallow() {
    this.#swallow.splice(0).forEach((swallow) => swallow());
  }

  stop() {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** Devices: each connects and calls `take` with the number of each message. They return a function that ends it. */
const DEVICES = {
  'socket.io 4.x, WebSocket': socketIo(['websocket'], false),
  'socket.io 4.x, polling': socketIo(['polling'], false),
  'socket.io 4.x, upgrade': socketIo(['polling', 'websocket'], false),
  'socket.io 4.x, WebSocket, resuming': socketIo(['websocket'], true),
  'socket.io 4.x, polling, resuming': socketIo(['polling'], true),
  'plain WebSocket': plain,
};

function socketIo(transports, resumes) {
  return async (port, token, take, memory) => {
    memory.resume ??= {};
    const auth = resumes ? { token, resume: memory.resume } : { token };
    const socket = io(`http://127.0.0.1:${port}`, { transports, forceNew: true, reconnection: false, auth });
    socket.on('note', ({ number }, meta) => {
      if (meta?.position) memory.resume[meta.room] = meta.position;
      take(number);
    });
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('connect_error', reject));
    return () => socket.disconnect();
  };
}

async function plain(port, token, take) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`);
  socket.on('error', () => {});
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.number) take(message.number);
  });
  await once(socket, 'open');
  socket.send(JSON.stringify({ type: 'auth', access_token: token }));
  await sleep(300);
  return () => socket.terminate();
}

/** One journey. Returns the numbers that arrived, in order; right is 1, 2, 3. */
async function travel(server, port, user, device, away) {
  const tunnel = await Tunnel.start(port);
  const [numbers, memory] = [[], {}];
  const store = (number) => server.backend.emit(user, 'note', { json: JSON.stringify({ number }) }, { store: true });
  const arrive = () => device(tunnel.port, server.token(user), (number) => numbers.push(number), memory);
  let leave = await arrive();
  await store(1);
  await sleep(1_000);
  tunnel.swallow();
  await store(2);
  await sleep(away);
  leave();
  leave = await arrive();
  await sleep(1_500);
  await store(3);
  await sleep(500);
  leave();
  await sleep(300);
  // Once more: nothing may come twice.
  leave = await arrive();
  await sleep(1_000);
  leave();
  tunnel.stop();
  return numbers;
}

/** All devices at once, with and without nginx, back before the server has noticed and after. */
export async function runTunnels() {
  const configuration = new Configuration({
    'clients.trusted_proxies': [PROXY],
    'socketio.ping_interval': '2s',
    'socketio.ping_timeout': '1s',
    websocket: [{ path: '/ws', events: ['*'] }],
  });
  const server = await Server.run(configuration);
  const nginx = await Nginx.start(server.port);
  try {
    const journeys = Object.entries(DEVICES).flatMap(([name, device]) =>
      [['direct', server.port], ['nginx', nginx.port]].flatMap(([via, port]) =>
        [500, 6_000].map((away) => ({ name, via, away, arrived: travel(server, port, `${name} ${via} ${away}`, device, away) })),
      ),
    );
    let holds = true;
    for (const { name, via, away, arrived } of journeys) {
      const numbers = await arrived.catch((error) => [error.message]);
      const isRight = numbers.join() === '1,2,3';
      holds &&= isRight;
      console.log(`tunnel: ${name}, ${via}, away for ${away / 1_000} s: ${numbers.join(', ')} ${isRight ? 'PASS' : 'FAIL'}`);
    }
    return holds;
  } finally {
    await nginx.stop();
    await server.kill();
    configuration.remove();
  }
}
