import assert from 'node:assert/strict';
import { after, afterEach, beforeEach, describe, test } from 'node:test';

import { counts } from './harness/backend.js';
import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });
const { backend } = server;
const all = (count) => ({ matched: count, enqueued: count, dropped: 0 });
const note = (text) => ({ event: 'note', json: JSON.stringify(text) });

describe('one user on every client in every way, and a stranger', () => {
  let devices;
  let stranger;
  let close;

  beforeEach(async () => {
    const closing = [];
    close = () => closing.forEach((end) => end());
    const context = { after: (end) => closing.push(end) };
    const token = server.token('42', { role: 'driver' });
    devices = await Promise.all(KINDS.map((kind) => Device.connect(context, server.url, { ...kind, token })));
    stranger = await Device.connect(context, server.url, { token: server.token('43') });
  });

  afterEach(async () => {
    const gone = [...devices, stranger].map(() => server.log.find((line) => line.message === 'disconnected'));
    close();
    await Promise.all(gone);
  });

  /** Each device hears exactly these, in this order; the stranger what is meant for it too. */
  async function hear(texts, strangersTexts) {
    await backend.broadcast(note('end'));
    for (const device of devices) assert.deepEqual(await heardBy(device), texts, `${device.client} by ${device.way}`);
    assert.deepEqual(await heardBy(stranger), strangersTexts, 'the stranger');
  }

  async function heardBy(device) {
    const texts = [];
    for (;;) {
      const [text] = await device.heard('note').next();
      if (text === 'end') return texts;
      texts.push(text);
    }
  }

  test('EmitToUser reaches the devices of the user and nobody else', async () => {
    const { receipt } = await backend.emitToUser({ user_id: '42', ...note('hello') });
    assert.deepEqual(counts(receipt), all(devices.length));
    await hear(['hello'], []);
  });

  test('EmitToUsers tells for each user', async () => {
    const { receipts, total } = await backend.emitToUsers({ user_ids: ['43', '42', 'nobody'], ...note('hello') });
    const told = receipts.map(({ user_id, receipt }) => [user_id, receipt.enqueued]);
    assert.deepEqual(told, [['43', 1], ['42', devices.length], ['nobody', 0]]);
    assert.deepEqual(counts(total), all(devices.length + 1));
    await hear(['hello'], ['hello']);
  });

  test('EmitToRoom reaches the room of a role', async () => {
    const { receipt } = await backend.emitToRoom({ room: 'role:driver', ...note('hello') });
    assert.deepEqual(counts(receipt), all(devices.length));
    await hear(['hello'], []);
  });

  test('EmitToRoom reaches a room that JoinRoom gave', async () => {
    assert.equal((await backend.joinRoom({ room: 'trip:7', user_id: '43' })).joined, 1);
    const { receipt } = await backend.emitToRoom({ room: 'trip:7', ...note('hello') });
    assert.deepEqual(counts(receipt), all(1));
    await hear([], ['hello']);
  });

  test('Broadcast reaches everyone', async () => {
    const { receipt } = await backend.broadcast(note('hello'));
    assert.deepEqual(counts(receipt), all(devices.length + 1));
    await hear(['hello'], ['hello']);
  });

  test('an excepted connection and an excepted user are left out', async () => {
    const [{ welcome }, ...others] = devices;
    const options = { except_connection_ids: [welcome.connectionId], except_user_ids: ['43'] };
    const { receipt } = await backend.broadcast({ ...note('hello'), options });
    assert.deepEqual(counts(receipt), all(others.length));
    const except = devices.shift();
    await hear(['hello'], []);
    assert.deepEqual(await heardBy(except), []);
    devices.unshift(except);
  });

  test('EmitBatch is sent in order, and a refused emit stops no other', async () => {
    const emits = [
      { user_id: '42', ...note(1) },
      { room: 'everyone', ...note(2) },
      { user_id: '42', event: 'connect' },
      { everyone: true, ...note(3) },
      { user_id: '43', ...note(4) },
    ];
    const { results } = await backend.emitBatch({ emits });
    const told = results.map(({ receipt, error }) => receipt?.enqueued ?? error.code);
    const count = devices.length;
    assert.deepEqual(told, [count, count + 1, 'CODE_INVALID_ARGUMENT', count + 1, 1]);
    await hear([1, 2, 3], [2, 3, 4]);
  });

  test('EmitStream is sent in order and answers each emit', async () => {
    const numbers = Array.from({ length: 500 }, (_, number) => number);
    const stream = backend.emitStream();
    for (const number of numbers) {
      stream.write({ correlation_id: `${number}`, emit: { user_id: '42', ...note(number) } });
    }
    stream.end();
    const answered = [];
    for await (const { correlation_id, result } of stream) {
      assert.deepEqual(counts(result.receipt), all(devices.length));
      answered.push(Number(correlation_id));
    }
    assert.deepEqual(answered.sort((a, b) => a - b), numbers);
    await hear(numbers, []);
  });

  test('a repetition with the same idempotency key sends nothing', async () => {
    const emit = { user_id: '42', ...note('once'), options: { idempotency_key: 'once' } };
    const first = (await backend.emitToUser(emit)).receipt;
    const second = (await backend.emitToUser(emit)).receipt;
    assert.deepEqual(second, { ...first, duplicate: true });
    await hear(['once'], []);
  });
});
