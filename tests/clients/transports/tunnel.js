import assert from 'node:assert/strict';

import { Proxy } from '../harness/proxy.js';
import { TRAVELLERS, Traveller } from '../harness/traveller.js';
import { CONTEXT, newUser, nothingSeen } from './world.js';

/** The device comes back on a connection of its own, before or after the server hears of the end of the one in the tunnel. */
const RETURNS = ['before the old connection ends', 'after the old connection ended'];

/** A phone in a tunnel: its network takes bytes and does not deliver them. */
export const tunnel = {
  title: 'what is stored while a device is in a tunnel arrives once, when it comes back',
  factors: {
    client: TRAVELLERS,
    way: ['polling', 'websocket', 'upgrade'],
    behind: ['directly', 'behind nginx'],
    comesBack: RETURNS,
    ...CONTEXT,
  },
  isBehindNginx: true,
  // A polling session whose answers are taken and whose device does not ask again ends with its ping.
  keys: { 'socketio.ping_interval': '3s', 'socketio.ping_timeout': '2s' },
  async run(t, { bugle, nginx }, { client, way, behind, comesBack, mode, delay }) {
    const user = newUser();
    const proxy = await Proxy.before(t, behind === 'directly' ? bugle.port : nginx.port, { delay });
    const options = { client, way, token: bugle.token(user), seen: nothingSeen(mode) };
    const phone = Traveller.open(t, proxy.url, options);
    await phone.welcome();
    await phone.settled();
    await bugle.store(user, 'before the tunnel');
    assert.equal(await phone.messages.next(), 'before the tunnel');
    await bugle.prove(user);
    if (way === 'polling') await proxy.holdsPoll();

    proxy.enterTunnel();
    const receipt = await bugle.store(user, 'in the tunnel');
    assert.deepEqual([receipt.matched, receipt.stored], [1, true]);
    if (comesBack === RETURNS[1]) {
      proxy.cut();
      await bugle.connections(user, 0);
    }
    phone.close();

    await hears(t, bugle, user, { ...options, way: 'websocket' }, ['in the tunnel']);
    proxy.cut();
    await bugle.connections(user, 0);
    await hears(t, bugle, user, options, []);
  },
};

/** A device connects, hears these messages and no other, proves that it has them, and closes. */
export async function hears(t, bugle, user, options, expected) {
  const device = Traveller.open(t, bugle.url, options);
  const { connectionId } = await device.welcome();
  // What was kept for it is sent before what comes now.
  await bugle.send(user, `fence of ${connectionId}`);
  const heard = await device.messages.take(expected.length + 1);
  assert.deepEqual(heard, [...expected, `fence of ${connectionId}`]);
  await device.settled();
  await bugle.prove(user);
  device.close();
}
