import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

/** Clients tell the status of a failed poll; of a failed WebSocket they tell nothing. */
function statusOf(failure) {
  return typeof failure.description === 'number' ? failure.description : undefined;
}

describe('where there is no room', { concurrency: 3 }, () => {
  for (const kind of KINDS) {
    const { client, way } = kind;

    test(`for the address: ${client} by ${way} is turned away and comes back by itself`, async (t) => {
      const server = await Server.start(t, { 'limits.connections_per_address': 1 });
      const token = server.token('42');
      const first = await Device.connect(t, server.url, { token });
      const second = Device.open(t, server.url, { ...kind, token });
      const failure = await second.failures.next();
      assert.equal(statusOf(failure), way === 'websocket' ? undefined : 429);
      await server.log.find((line) => line['refusal.reason'] === 'connections_per_address');
      await second.attempts.next();
      first.close();
      await second.ready();
      assert.deepEqual(second.refusals.drain(), []);
    });

    test(`for the user: ${client} by ${way} is cut off and comes back by itself`, async (t) => {
      const server = await Server.start(t, { 'limits.connections_per_user': 1 });
      const token = server.token('42');
      const first = await Device.connect(t, server.url, { token });
      const second = Device.open(t, server.url, { ...kind, token });
      await second.attempts.next();
      first.close();
      await second.connects.next();
      assert.equal((await server.backend.emit('42', 'note')).enqueued, 1);
      assert.deepEqual(await second.heard('note').next(), []);
      assert.deepEqual(second.refusals.drain(), []);
    });
  }

  test('the answer says when to try again', async (t) => {
    const server = await Server.start(t, { 'limits.connections_per_address': 1 });
    const open = `${server.url}/socket.io/?EIO=4&transport=polling`;
    assert.equal((await fetch(open)).status, 200);
    const refused = await fetch(open);
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get('retry-after'), '5');
  });
});
