import assert from 'node:assert/strict';
import { setTimeout as delayed } from 'node:timers/promises';

import { FAULTS, Proxy } from '../harness/proxy.js';
import { TRAVELLERS, Traveller } from '../harness/traveller.js';
import { CONTEXT, newUser, nothingSeen } from './world.js';

/** How long a device is watched, in milliseconds: longer than an attempt to upgrade may take. */
const WATCHED = 12_000;
const EMIT_EACH = 250;
const MIN_SENT = 10;
const MAX_REQUESTS_PER_SECOND = 20;
/**
 * A client in Python polls only when its attempt to upgrade is over, for which it has no deadline: the server has to end the WebSocket, and
 * to keep the session. Node's server does it too, when the ws package has waited 30 s for an answer to its close frame.
 */
const FIRST_CONNECT = 15_000;
const isComparable = ({ client, fault }) => client !== 'python' || !fault.startsWith('swallows');

/** A proxy that knows no WebSocket, or says that it does and passes none on. */
export const badProxies = {
  title: 'behind a proxy that breaks WebSockets polling goes on',
  factors: { fault: FAULTS, client: TRAVELLERS, ...CONTEXT },
  isPossible: ({ client, fault }) => client !== 'python' || fault !== 'hangs',
  isCompared: true,
  async run(t, { bugle, node }, row) {
    const reference = isComparable(row) && watch(t, node, row);
    const ours = await watch(t, bugle, row);
    assert.deepEqual(judged(ours), good(ours));
    if (reference) assert.deepEqual(judged(await reference), good(await reference), "Node's server");
  },
};

/** What becomes of a device that is sent a message every so often. */
async function watch(t, server, { client, fault, mode, delay }) {
  const user = newUser();
  const proxy = await Proxy.before(t, server.port, { delay, fault });
  const token = server.token(user);
  const device = Traveller.open(t, proxy.url, { client, way: 'upgrade', token, seen: nothingSeen(mode) });
  const opened = Date.now();
  const failed = await device.connects.next(FIRST_CONNECT).then(() => undefined, (error) => error.message);
  if (failed) return { failed };
  const [begun, before] = [Date.now(), proxy.requests];
  let sent = 0;
  while (Date.now() - opened < WATCHED || sent < MIN_SENT) {
    await server.send(user, sent);
    sent += 1;
    await delayed(EMIT_EACH);
  }
  const received = await device.messages.take(sent).catch(() => device.messages.drain());
  const requests = (proxy.requests - before) / ((Date.now() - begun) / 1_000);
  return { sent, received, requests, disconnects: device.disconnects.drain(), transport: device.transport, upgrades: proxy.upgrades };
}

function good({ sent }) {
  const received = Array.from({ length: sent }, (_, number) => number);
  return { received, disconnects: [], transport: 'polling', upgrades: 1, tooManyRequests: false };
}

function judged({ requests, sent, ...rest }) {
  return { ...rest, tooManyRequests: requests > MAX_REQUESTS_PER_SECOND && requests };
}
