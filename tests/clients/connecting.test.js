import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });
const TRANSPORTS = {
  polling: 'TRANSPORT_SOCKETIO_POLLING',
  websocket: 'TRANSPORT_SOCKETIO_WEBSOCKET',
  upgrade: 'TRANSPORT_SOCKETIO_WEBSOCKET',
};

for (const { client, way } of KINDS) {
  describe(`${client} by ${way}`, () => {
    const connect = (t, options) => Device.connect(t, server.url, { client, way, ...options });

    test('a device with a token connects, is welcomed and is present', async (t) => {
      const user = `present ${client} ${way}`;
      const device = await connect(t, { token: server.token(user, { role: 'driver' }) });
      const { online, connections } = await server.backend.getUser({ user_id: user });
      assert.equal(online, true);
      assert.equal(connections.length, 1);
      assert.equal(connections[0].transport, TRANSPORTS[way]);
      assert.equal(device.transport, way === 'polling' ? 'polling' : 'websocket');
      const { userId, connectionId, rooms } = device.welcome;
      assert.equal(userId, user);
      assert.equal(connectionId, connections[0].id);
      assert.deepEqual(rooms.sort(), ['everyone', 'role:driver', `user:${user}`]);
      assert.notEqual(connectionId, device.socket.id);
    });

    test('the word Bearer before the token is passed over', async (t) => {
      const device = await connect(t, { token: `Bearer ${server.token('bearer')}` });
      assert.equal(device.welcome.userId, 'bearer');
    });

    test('the token may be in the query', async (t) => {
      const device = await connect(t, { token: server.token('query'), tokenIn: 'query' });
      assert.equal(device.welcome.userId, 'query');
    });

    test('the token may be in a header', async (t) => {
      const device = await connect(t, { token: `Bearer ${server.token('header')}`, tokenIn: 'header' });
      assert.equal(device.welcome.userId, 'header');
    });

    test('a device that leaves is not present any more', async (t) => {
      const user = `leaving ${client} ${way}`;
      const device = await connect(t, { token: server.token(user) });
      device.close();
      await server.log.find((line) => line.message === 'disconnected' && line['user.id'] === user);
      const { online } = await server.backend.getUser({ user_id: user });
      assert.equal(online, false);
    });
  });
}

test('no token is in the log', () => {
  assert.match(server.logged, /connected/);
  assert.doesNotMatch(server.logged, /eyJ/);
});
