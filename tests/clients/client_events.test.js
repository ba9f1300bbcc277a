import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { counts } from './harness/backend.js';
import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });

for (const kind of KINDS) {
  describe(`${kind.client} by ${kind.way}`, () => {
    const connect = (t, user, claims) =>
      Device.connect(t, server.url, { ...kind, token: server.token(user, claims) });

    test('an event that no rule allows is refused', async (t) => {
      const device = await connect(t, '42');
      const { error } = await device.ask('chat', { text: 'hello' });
      assert.equal(error.code, 'unknown_event');
    });

    test('an event with bytes is refused, and the connection goes on', async (t) => {
      const device = await connect(t, '42');
      const { error } = await device.ask('chat', Buffer.from([1, 2, 3]));
      assert.equal(error.code, 'unknown_event');
      assert.ok((await device.ask('chat')).error);
    });

    test('a fresh token replaces the old one and its rooms', async (t) => {
      const user = `refreshing ${kind.client} ${kind.way}`;
      const [old, fresh] = [`old of ${user}`, `new of ${user}`];
      const device = await connect(t, user, { role: old });
      assert.deepEqual(await device.ask('bugle:refresh', { token: server.token(user, { role: fresh }) }), { ok: true });
      const matched = async (role) => {
        const { receipt } = await server.backend.emitToRoom({ room: `role:${role}`, event: 'note' });
        return counts(receipt).matched;
      };
      assert.deepEqual([await matched(old), await matched(fresh)], [0, 1]);
      assert.deepEqual(await device.heard('note').next(), []);
    });

    test('a token of another user, a wrong one and none are refused, and the old one holds', async (t) => {
      const device = await connect(t, '42');
      const code = async (...args) => (await device.ask('bugle:refresh', ...args)).error.code;
      assert.equal(await code({ token: server.token('43') }), 'wrong_user');
      assert.equal(await code({ token: 'wrong' }), 'invalid_token');
      assert.equal(await code(), 'invalid_argument');
      assert.ok((await server.backend.emit('42', 'note')).enqueued > 0);
      assert.deepEqual(await device.heard('note').next(), []);
    });
  });
}
