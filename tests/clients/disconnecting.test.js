import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });
const SILENCE = 3_000;

describe('DisconnectUser', { concurrency: true }, () => {
  for (const kind of KINDS) {
    const { client, way } = kind;
    const connect = (t, user) => Device.connect(t, server.url, { ...kind, token: server.token(user) });

    test(`${client} by ${way} is told, leaves within a second and does not come back`, async (t) => {
      const user = `logged out ${client} ${way}`;
      const device = await connect(t, user);
      const { disconnected } = await server.backend.disconnectUser({ user_id: user, reason: 'logged out' });
      assert.equal(disconnected, 1);
      assert.equal(await device.disconnects.next(1_000), 'io server disconnect');
      const told = device.heard('bugle:disconnect').drain();
      assert.deepEqual(told, [[{ code: 'disconnected', reason: 'logged out', retry: false }]]);
      assert.equal((await server.backend.getUser({ user_id: user })).online, false);
      await Promise.all([device.attempts.stayEmpty(SILENCE), device.connects.stayEmpty(SILENCE)]);
    });

    test(`${client} by ${way} stays when it is excepted`, async (t) => {
      const user = `logged out elsewhere ${client} ${way}`;
      const [stays, goes] = await Promise.all([connect(t, user), connect(t, user)]);
      const except_connection_ids = [stays.welcome.connectionId];
      const { disconnected } = await server.backend.disconnectUser({ user_id: user, except_connection_ids });
      assert.equal(disconnected, 1);
      assert.equal(await goes.disconnects.next(1_000), 'io server disconnect');
      assert.equal((await server.backend.emit(user, 'note')).enqueued, 1);
      assert.deepEqual(await stays.heard('note').next(), []);
    });
  }

  test('a user who is not there is no error', async () => {
    const { disconnected } = await server.backend.disconnectUser({ user_id: 'nobody' });
    assert.equal(disconnected, 0);
  });
});
