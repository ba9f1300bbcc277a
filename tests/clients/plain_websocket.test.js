import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, describe, test } from 'node:test';
import { setTimeout as delayed } from 'node:timers/promises';

import { WebSocket } from 'ws';

import { Arrivals, within } from './harness/deadline.js';
import { Proxy } from './harness/proxy.js';
import { newUser, startWorld } from './transports/world.js';

const keys = {
  websocket: [{ path: '/ws', events: ['m'] }],
  'socketio.ping_interval': '3s',
  'socketio.ping_timeout': '2s',
};
const { bugle, nginx } = await startWorld({ after }, { keys, isBehindNginx: true });
/** How long a device stays after a message, in milliseconds: what the promise is about. */
const STAY = 1_000;

/** The `ws` package as a device: each payload that it gets. */
class Player {
  messages = new Arrivals('a frame');

  static async connect(t, port, user) {
    const player = new Player(port);
    t.after(() => player.socket.terminate());
    await within(once(player.socket, 'open'), 'the WebSocket');
    player.socket.send(JSON.stringify({ type: 'auth', access_token: bugle.token(user) }));
    return player;
  }

  constructor(port) {
    this.socket = new WebSocket(`ws://127.0.0.1:${port}/ws`);
    this.socket.on('message', (bytes) => this.messages.push(JSON.parse(bytes))).on('error', () => {});
  }

  /** Waits until the server has read what was sent before. */
  async isHeard() {
    this.socket.ping();
    await within(once(this.socket, 'pong'), 'a pong');
  }

  async close() {
    this.socket.close();
    await within(once(this.socket, 'close'), 'the end of the WebSocket');
  }
}

/** A device connects, and hears these and nothing else; then it proves them, and goes. */
async function hears(t, user, expected) {
  const player = await Player.connect(t, bugle.port, user);
  await player.isHeard();
  await bugle.send(user, 'fence');
  assert.deepEqual(await player.messages.take(expected.length + 1), [...expected, 'fence']);
  // The pong to the ping after the last message is before this ping.
  await player.isHeard();
  await player.close();
}

describe('a plain WebSocket', { concurrency: true }, () => {
  for (const delay of [0, 40]) {
    test(`a device ${delay} ms away that closes a second after a stored message does not get it again`, async (t) => {
      const user = newUser();
      const proxy = await Proxy.before(t, bugle.port, { delay });
      const player = await Player.connect(t, proxy.port, user);
      await player.isHeard();
      await bugle.store(user, 'once');
      assert.equal(await player.messages.next(), 'once');
      await delayed(STAY);
      await player.close();
      await bugle.connections(user, 0);
      await hears(t, user, []);
    });

    for (const [behind, port] of [['directly', bugle.port], ['behind nginx', nginx.port]]) {
      test(`what is stored while it is in a tunnel arrives once, ${behind}, ${delay} ms away`, async (t) => {
        const user = newUser();
        const proxy = await Proxy.before(t, port, { delay });
        const player = await Player.connect(t, proxy.port, user);
        await player.isHeard();
        await bugle.store(user, 'before the tunnel');
        assert.equal(await player.messages.next(), 'before the tunnel');
        await player.isHeard();
        proxy.enterTunnel();
        assert.equal((await bugle.store(user, 'in the tunnel')).matched, 1);
        await hears(t, user, ['in the tunnel']);
        proxy.cut();
        await bugle.connections(user, 0);
        await hears(t, user, []);
      });
    }
  }
});
