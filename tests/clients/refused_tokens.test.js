import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import jwt from 'jsonwebtoken';

import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });
const MISSING = 'Authentication token required';
const INVALID = 'Invalid or expired token';
const SILENCE = 3_000;

const REFUSED = {
  'no token': [undefined, MISSING],
  'a token that is none': ['wrong', INVALID],
  'an expired token': [server.token('42', {}, '-1h'), INVALID],
  'a token signed with another secret': [jwt.sign({ sub: '42' }, 'x'.repeat(32), { expiresIn: '1h' }), INVALID],
  'an unsigned token': [jwt.sign({ sub: '42' }, null, { algorithm: 'none', expiresIn: '1h' }), INVALID],
};

for (const kind of KINDS) {
  const { client, way } = kind;
  describe(`${client} by ${way}`, { concurrency: true }, () => {
    for (const [what, [token, message]] of Object.entries(REFUSED)) {
      test(`${what} is refused`, async (t) => {
        const device = Device.open(t, server.url, { ...kind, token, reconnection: false });
        assert.equal(await device.refusals.next(), message);
        assert.equal(device.socket.connected, false);
        assert.deepEqual(device.heard('connected').drain(), []);
      });
    }

    if (client === '4.x') {
      test('a refused client gives up by itself', async (t) => {
        const device = Device.open(t, server.url, { ...kind, token: 'wrong' });
        await device.refusals.next();
        await Promise.all([device.refusals.stayEmpty(SILENCE), device.attempts.stayEmpty(SILENCE)]);
        assert.equal(device.socket.active, false);
      });
    } else {
      // These keep their transport; when the server cuts it they take it as a loss of connection.
      test('a refused client comes back with its own backoff and is refused again', async (t) => {
        const device = Device.open(t, server.url, { ...kind, token: 'wrong' });
        assert.deepEqual(await device.refusals.take(2), [INVALID, INVALID]);
        assert.ok(device.attempts.drain().length > 0);
      });
    }
  });
}
