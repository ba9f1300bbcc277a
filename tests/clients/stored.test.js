import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Arrivals } from './harness/deadline.js';
import { CLIENTS, Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after }, {
  rooms: [{ match: 'news:*', history: { size: 100, age: '2m' } }],
  'auth.rooms': ['news:{claim.paper}'],
});
const STORE = { store: true };
const stored = (user, n, options = STORE) => server.backend.emit(user, 'kept', { json: `${n}` }, options);

/** A device, and the arguments of each kept event and of each bugle:resumed. */
function open(t, kind, options) {
  const device = Device.open(t, server.url, { ...kind, ...options });
  const kept = new Arrivals('a kept event');
  const resumed = new Arrivals('bugle:resumed');
  device.socket.on('kept', (...args) => kept.push(args));
  device.socket.on('bugle:resumed', (told) => resumed.push(told));
  return { device, kept, resumed };
}

/** As each client says what it has seen. */
function credentials({ client }, token, resume) {
  if (CLIENTS[client].tokenIn === 'query') return { query: { token, resume: JSON.stringify(resume) } };
  return { auth: { token, resume } };
}

for (const kind of KINDS) {
  describe(`${kind.client} by ${kind.way}`, () => {
    const user = (what) => `${what} ${kind.client} ${kind.way}`;

    test('a device as it always was gets what was stored, in order, and never a second argument', async (t) => {
      const away = user('away');
      for (const n of [1, 2, 3]) assert.equal((await stored(away, n)).stored, true);
      const { kept } = open(t, kind, { token: server.token(away, { paper: away }) });
      assert.deepEqual(await kept.take(3), [[1], [2], [3]]);
      await stored(away, 4);
      await server.backend.emitToRoom({ room: `news:${away}`, event: 'kept', json: '5' });
      assert.deepEqual(await kept.take(2), [[4], [5]]);
    });

    test('a handler of (data, ack) gets those two', async (t) => {
      const asked = user('asked');
      const { device } = open(t, kind, { token: server.token(asked) });
      const questions = new Arrivals('a question');
      device.socket.on('question', (...args) => questions.push(args));
      await device.ready();
      const ack = { mode: 'MODE_ALL', timeout: { seconds: 8 } };
      const receipt = server.backend.emit(asked, 'question', { json: '7' }, { store: true, ack });
      const [data, answer, ...more] = await questions.next();
      assert.deepEqual([data, more], [7, []]);
      answer('yes');
      const { acks, position } = await receipt;
      assert.deepEqual([acks[0].json, position.split('.')[1]], ['["yes"]', '1']);
    });

    test('a device that resumes gets what it missed of its mailbox and of a history', async (t) => {
      const back = user('back');
      const token = server.token(back, { paper: back });
      const [own, news] = [`user:${back}`, `news:${back}`];
      const first = open(t, kind, credentials(kind, token, {}));
      const seen = {};
      const { rooms } = await first.resumed.next();
      for (const room of [own, news]) seen[room] = rooms[room].position;
      await stored(back, 1);
      const [one, meta] = await first.kept.next();
      assert.deepEqual([one, meta.room], [1, own]);
      seen[own] = meta.position;
      first.device.close();
      await first.device.disconnects.next();
      for (const n of [2, 3]) await stored(back, n);
      await server.backend.emitToRoom({ room: news, event: 'kept', json: '4' });

      const second = open(t, kind, credentials(kind, token, seen));
      const missed = await second.kept.take(3);
      assert.deepEqual(missed.filter(([, { room }]) => room === own).map(([n]) => n), [2, 3]);
      assert.deepEqual(missed.filter(([, { room }]) => room === news).map(([n]) => n), [4]);
      const told = await second.resumed.next();
      assert.deepEqual([own, news].map((room) => [told.rooms[room].recovered, told.rooms[room].count]), [[true, 2], [true, 1]]);
    });
  });
}

test('five lines are enough to resume over a broken connection', async (t) => {
  const token = server.token('five');
  const seen = {};
  const shown = new Arrivals('a kept event');
  const { device } = open(t, { client: '4.x', way: 'websocket' }, { auth: (send) => send({ token, resume: seen }) });
  const { socket } = device;
  // As in the README.
  socket.onAny((event, payload, kept) => { if (kept?.position) seen[kept.room] = kept.position; });
  const resumed = new Arrivals('bugle:resumed');
  socket.on('bugle:resumed', ({ rooms }) => {
    for (const [room, { position }] of Object.entries(rooms)) if (position) seen[room] = position;
    resumed.push(rooms);
  });
  socket.on('kept', (n) => shown.push(n));
  await resumed.next();
  for (let n = 1; n <= 5; n += 1) {
    await stored('five', n);
    assert.equal(await shown.next(), n);
    socket.io.engine.close();
    await device.disconnects.next();
    await stored('five', `${n}.5`);
    assert.equal(await shown.next(), n + 0.5);
    assert.equal((await resumed.next())['user:five'].count, 1);
  }
});
