import assert from 'node:assert/strict';

import { Proxy } from '../harness/proxy.js';
import { TRAVELLERS, Traveller } from '../harness/traveller.js';
import { CONTEXT, newUser, nothingSeen } from './world.js';

const STORED = 40;
const PAD = 'x'.repeat(60_000);

/** A device that was away comes, and catches up while it upgrades. */
export const backlog = {
  title: 'a backlog arrives whole and in order, and so does what is sent meanwhile and afterwards',
  factors: { client: TRAVELLERS, way: ['polling', 'websocket', 'upgrade'], ...CONTEXT },
  async run(t, { bugle }, { client, way, mode, delay }) {
    const user = newUser();
    for (let n = 0; n < STORED; n += 1) await bugle.store(user, { n, pad: PAD });
    const proxy = await Proxy.before(t, bugle.port, { delay });
    const token = bugle.token(user);
    const device = Traveller.open(t, proxy.url, { client, way, token, seen: nothingSeen(mode) });

    const [first] = await device.messages.take(1);
    await bugle.store(user, { n: STORED });
    const others = await device.messages.take(STORED);
    assert.deepEqual([first, ...others].map(({ n }) => n), Array.from({ length: STORED + 1 }, (_, n) => n));
    await device.settled();
    const receipt = await bugle.send(user, { n: STORED + 1 });
    assert.deepEqual([receipt.matched, receipt.enqueued], [1, 1]);
    assert.deepEqual(await device.messages.next(), { n: STORED + 1 });
    assert.equal(device.connects.drain().length, 1);
    assert.equal(device.transport, way === 'polling' ? 'polling' : 'websocket');
  },
};
