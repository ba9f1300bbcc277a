import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after }, { 'auth.jwt.leeway': '0s', 'auth.expiring_notice': '2s' });
const SOON = '4s';

describe('a token that expires while the device is connected', { concurrency: true }, () => {
  for (const kind of KINDS) {
    const connect = (t, token) => Device.connect(t, server.url, { ...kind, token, reconnection: false });

    test(`${kind.client} by ${kind.way} is told, and then closed`, async (t) => {
      const device = await connect(t, server.token('42', {}, SOON));
      const [{ expiresAt }] = await device.heard('bugle:token_expiring').next();
      assert.ok(Date.parse(expiresAt) > Date.now());
      const [{ code, retry }] = await device.heard('bugle:disconnect').next();
      assert.deepEqual([code, retry], ['expired', true]);
      assert.match(await device.disconnects.next(), /^transport (close|error)$/);
      assert.ok(Date.now() >= Date.parse(expiresAt));
    });

    test(`${kind.client} by ${kind.way} stays when it has refreshed`, async (t) => {
      const user = `refreshed ${kind.client} ${kind.way}`;
      const device = await connect(t, server.token(user, {}, SOON));
      const unrefreshed = await connect(t, server.token(user, {}, SOON));
      await device.heard('bugle:token_expiring').next();
      assert.deepEqual(await device.ask('bugle:refresh', { token: server.token(user) }), { ok: true });
      await unrefreshed.disconnects.next();
      assert.equal((await server.backend.emit(user, 'note')).enqueued, 1);
      assert.deepEqual(await device.heard('note').next(), []);
    });
  }
});
