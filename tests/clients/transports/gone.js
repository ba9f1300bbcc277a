import assert from 'node:assert/strict';
import { setTimeout as delayed } from 'node:timers/promises';

import { CLIENTS } from '../harness/device.js';
import { Proxy } from '../harness/proxy.js';
import { TRAVELLERS, Traveller } from '../harness/traveller.js';
import { hears } from './tunnel.js';
import { CONTEXT, newUser, nothingSeen } from './world.js';

/** How long the user of a closed tab may stay online, in milliseconds. */
const SOON = 3_000;

/** A tab is closed, or its network goes, while it polls. */
export const pollingGone = {
  title: 'a polling device that goes away is soon offline, and the next one gets what was stored since',
  factors: { client: TRAVELLERS, next: ['polling', 'websocket', 'upgrade'], ...CONTEXT },
  async run(t, { bugle }, { client, next, mode, delay }) {
    const user = newUser();
    const proxy = await Proxy.before(t, bugle.port, { delay });
    const options = { client, token: bugle.token(user), seen: nothingSeen(mode) };
    const tab = Traveller.open(t, proxy.url, { ...options, way: 'polling' });
    await tab.welcome();
    await bugle.prove(user);
    await proxy.holdsPoll();

    proxy.close();
    tab.close();
    await bugle.store(user, 'at once');
    await bugle.connections(user, 0, SOON);
    await bugle.store(user, 'later');
    await hears(t, bugle, user, { ...options, way: next }, ['at once', 'later']);
    await bugle.connections(user, 0);
    await hears(t, bugle, user, { ...options, way: next }, []);
  },
};

/** How much of an answer passes: less than its head, and a part of its body. */
const CUTS = { 'in its head': 40, 'in its body': 9_000 };

/** The line breaks while a poll is answered. */
export const answerCut = {
  title: 'a stored message whose poll is cut in the middle of the answer arrives once, when the device comes back',
  // Not the one in Python: its HTTP library repeats a poll that fails by itself, and that is like a next one.
  factors: { client: Object.keys(CLIENTS), cut: Object.keys(CUTS), ...CONTEXT },
  async run(t, { bugle }, { client, cut, mode, delay }) {
    const user = newUser();
    const proxy = await Proxy.before(t, bugle.port, { delay });
    const token = bugle.token(user);
    const device = Traveller.open(t, proxy.url, { client, way: 'polling', token, seen: nothingSeen(mode) });
    await device.welcome();
    await bugle.prove(user);
    await proxy.holdsPoll();

    proxy.cutNextAnswer(CUTS[cut]);
    const long = 'x'.repeat(60_000);
    await bugle.store(user, long);
    assert.equal((await device.messages.next()).length, long.length);
    await bugle.prove(user);
    await bugle.send(user, 'fence');
    assert.equal(await device.messages.next(), 'fence');
  },
};

/** How long the device stays after the message, in milliseconds: what the promise is about. */
const STAY = 1_000;

/** A device takes a message, and is closed by its user a second later. */
export const closesNormally = {
  title: 'a device that closes a second after a stored message does not get it again',
  factors: { client: TRAVELLERS, way: ['polling', 'websocket', 'upgrade'], delay: [0, 40] },
  async run(t, { bugle }, { client, way, delay }) {
    const user = newUser();
    const proxy = await Proxy.before(t, bugle.port, { delay });
    const options = { client, way, token: bugle.token(user) };
    const device = Traveller.open(t, proxy.url, options);
    await device.welcome();
    await device.settled();
    await bugle.store(user, 'once');
    assert.equal(await device.messages.next(), 'once');
    await delayed(STAY);
    device.close();
    await bugle.connections(user, 0);
    await hears(t, bugle, user, options, []);
  },
};

/** A page leaves the namespace and joins it again on the same transport: no client does that unless another namespace keeps it open. */
export const joinsAgain = {
  title: 'a CONNECT after a DISCONNECT on the same transport is answered',
  factors: { client: ['2.x', '3.x', '4.x'], way: ['polling', 'websocket', 'upgrade'], delay: [0, 40] },
  async run(t, { bugle }, { client, way, delay }) {
    const user = newUser();
    const proxy = await Proxy.before(t, bugle.port, { delay });
    const token = bugle.token(user);
    const device = Traveller.open(t, proxy.url, { client, way, token });
    const { connectionId } = await device.welcome();
    await device.settled();
    const { engine } = device.socket.io;

    engine.write('1');
    await bugle.connections(user, 0);
    engine.write(client === '2.x' ? '0' : `0${JSON.stringify({ token })}`);
    const again = await device.welcome();
    assert.notEqual(again.connectionId, connectionId);
    await bugle.connections(user, 1);
    await bugle.send(user, 'here again');
    assert.equal(await device.messages.next(), 'here again');
    assert.deepEqual(device.disconnects.drain(), []);
  },
};
