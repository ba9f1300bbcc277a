import { setTimeout as sleep } from 'node:timers/promises';

import { Crowd } from './crowd.js';
import { Failure } from './failure.js';
import { bareWebSocket, heldPoll, plainWebSocket, session, socketIo } from './kinds.js';
import { SUBSCRIBE } from './nchan.js';
import { residentKib } from './process.js';

/** How the devices of each contender are connected, in the order of the table. */
const KINDS = {
  bugle: { title: 'Bugle, Socket.IO over WebSocket', kind: socketIo },
  'bugle-plain': { title: 'Bugle, plain WebSocket', kind: plainWebSocket },
  'bugle-session': { title: 'Bugle, polling session between polls', kind: session },
  'bugle-held': { title: 'Bugle, held poll on its connection', kind: heldPoll },
  node: { title: 'Node, Socket.IO over WebSocket', kind: socketIo },
  ws: { title: 'Node, ws alone', kind: bareWebSocket('/') },
  nchan: { title: 'nginx with nchan', kind: bareWebSocket(SUBSCRIBE) },
  python: { title: 'Python, Socket.IO over WebSocket', kind: socketIo },
};

const thousands = (number) => number.toLocaleString('en-US');

/** `isSigned`: a process may have less memory than before. */
const FIGURES = [
  {
    name: 'each',
    unit: 'KiB',
    isSigned: true,
    of: ({ devices, from, kib }) => (kib.all - kib.few) / (devices - from),
    atMost: { bugle: 9, 'bugle-plain': 4.5, 'bugle-session': 3 },
  },
  { name: 'all a second time', unit: '×', isSigned: true, of: ({ kib }) => kib.again / kib.all, atMost: { bugle: 1.05 } },
  { name: 'each, once all have left', unit: 'KiB', isSigned: true, of: ({ devices, kib }) => (kib.left - kib.start) / devices, atMost: { bugle: 1 } },
];

/**
 * Resident memory of idle connections: the slope between two numbers of them, what a second cycle needs beside the first, and what is left.
 * It is reported in a table of its own, with a row for each contender.
 */
export const MEMORY = {
  isApart: true,
  isFresh: true,
  // It hardly differs between rounds, and takes long.
  mostRounds: 1,
  from: 5_000,
  devices: 15_000,
  // Servers free what a handshake needed only after seconds: Bugle after 6.
  settleSeconds: 7,
  contenders: Object.keys(KINDS),
  kinds: KINDS,
  measures: Object.fromEntries(Object.entries(KINDS).map(([name, { kind }]) => [name, (...args) => measured(kind, ...args)])),
  title: ({ from, devices }) => `resident memory, ${thousands(from)} to ${thousands(devices)} idle connections`,
  figures: FIGURES,
};

async function measured(kind, contender, load) {
  try {
    return await cycles(new Crowd(kind, contender), contender, load);
  } catch (error) {
    throw new Failure(`${contender.title}, ${load.name}: ${error.message}\nits log ends:\n${contender.lastWords}`, { cause: error });
  }
}

/** Connects all, lets them go, and both a second time. */
async function cycles(crowd, contender, { from, devices, settleSeconds }) {
  const settled = async () => {
    await sleep(settleSeconds * 1_000);
    crowd.check();
    return residentKib(contender.pid);
  };
  const start = await settled();
  await crowd.grow(from);
  const few = await settled();
  await crowd.grow(devices);
  const all = await settled();
  await crowd.leave();
  const between = await settled();
  await crowd.grow(devices);
  const again = await settled();
  await crowd.leave();
  return { from, devices, kib: { start, few, all, between, again, left: await settled() } };
}
