/**
 * One run of a server: a message is stored while the device is away, the device comes back from what it has seen, and another is stored
 * while it is there. The older version runs first and third, the newer one second and fourth.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import { Arrivals, within } from '../../clients/harness/deadline.js';
import { Device } from '../../clients/harness/device.js';
import { Server } from '../../clients/harness/server.js';

const ROOM = 'user:42';
const [folder, store] = process.argv.slice(2);
const step = Number(process.argv[4]);
const state = join(folder, 'seen');
const seen = existsSync(state) ? { [ROOM]: readFileSync(state, 'utf8') } : {};
/** The older version does not know positions of generations, and says so. */
const isRolledBack = step === 3;

const cleanups = [];
const context = { after: (cleanup) => cleanups.unshift(cleanup) };
try {
  const server = await Server.start(context, { 'store.url': store });
  await ready(server);
  const emit = (n) => server.backend.emit('42', 'kept', { json: `${n}` }, { store: true });
  assert.equal((await emit(step * 2 - 1)).stored, true);
  const auth = { token: server.token('42'), resume: seen };
  const device = Device.open(context, server.url, { client: '4.x', way: 'websocket', auth });
  const [kept, resumed] = [new Arrivals('a kept event'), new Arrivals('bugle:resumed')];
  device.socket.on('kept', (...args) => kept.push(args));
  device.socket.on('bugle:resumed', (told) => resumed.push(told));
  const { rooms } = await resumed.next();
  assert.equal(rooms[ROOM].recovered, !isRolledBack, `step ${step}: ${JSON.stringify(rooms[ROOM])}`);
  if (!isRolledBack) assert.equal((await kept.next())[0], step * 2 - 1);
  assert.equal((await emit(step * 2)).stored, true);
  const [n, { position }] = await kept.next();
  assert.equal(n, step * 2);
  writeFileSync(state, position);
  console.log(`step ${step}: resumed from ${seen[ROOM] ?? 'nothing'}: ${JSON.stringify(rooms[ROOM])}`);
} finally {
  for (const cleanup of cleanups) await cleanup();
}

/** Waits until messages can be stored: the process before was killed, and its lease of a PostgreSQL ends after 4 s. */
async function ready(server) {
  const isReady = async () => {
    while ((await fetch(`${server.adminUrl}/readyz`)).status !== 200) await setTimeout(50);
  };
  await within(isReady(), 'the store to be ready', 20_000);
}
