import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';

import { Device, KINDS } from './harness/device.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });
const CUT = 500;

describe('a network that is gone for half a second', { concurrency: true }, () => {
  for (const kind of KINDS) {
    test(`${kind.client} by ${kind.way} comes back by itself`, async (t) => {
      const user = `traveller ${kind.client} ${kind.way}`;
      const network = await Network.before(t, server.port);
      const device = await Device.connect(t, network.url, { ...kind, token: server.token(user) });

      await network.cut();
      assert.match(await device.disconnects.next(), /^transport (close|error)$/);
      await delay(CUT);
      await network.restore();
      const before = device.welcome.connectionId;
      await device.connects.next();
      const [{ connectionId }] = await device.heard('connected').next();
      assert.notEqual(connectionId, before);

      assert.ok((await server.backend.emit(user, 'note', { json: '"hello again"' })).enqueued >= 1);
      await server.backend.emit(user, 'note', { json: '"end"' });
      assert.deepEqual(await device.heard('note').take(2), [['hello again'], ['end']]);
    });
  }
});
