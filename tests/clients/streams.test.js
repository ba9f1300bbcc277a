import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, describe, test } from 'node:test';

import { Arrivals } from './harness/deadline.js';
import { Device } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });
const COUNT = 20_000;

/** Answers of a stream of which all emits are written at once, whatever flow control says. */
async function burst(stream, options) {
  for (let n = 0; n < COUNT; n += 1) {
    stream.write({ correlation_id: `${n}`, emit: { user_id: '42', event: 'n', json: `${n}`, options } });
  }
  stream.end();
  const answered = new Set();
  for await (const { correlation_id, result } of stream) {
    assert.ok(result.receipt, `emit ${correlation_id}: ${JSON.stringify(result.error)}`);
    answered.add(correlation_id);
  }
  return answered.size;
}

describe('small emits that a backend writes to a stream at once', () => {
  for (const [name, options] of [['plain', {}], ['stored', { store: true }]]) {
    test(`${name} ones are all answered, arrive in order, and end no other stream of the connection`, async (t) => {
      const device = await Device.connect(t, server.url, { token: server.token('42') });
      const numbers = new Arrivals('an event');
      device.socket.on('n', (n) => numbers.push(n));
      const other = server.backend.emitStream();
      const answers = other[Symbol.asyncIterator]();
      assert.equal(await burst(server.backend.emitStream(), options), COUNT);
      for (let n = 0; n < COUNT; n += 1) assert.equal(await numbers.next(), n);
      other.write({ correlation_id: 'other', emit: { user_id: '42', event: 'n', json: '-1' } });
      assert.equal((await answers.next()).value.correlation_id, 'other');
      assert.equal(await numbers.next(), -1);
      other.end();
      assert.equal((await answers.next()).done, true);
    });
  }
});

test('streams whose caller cancels them while an emit is unanswered are counted, and not all are logged', async (t) => {
  const STREAMS = 20;
  const device = await Device.connect(t, server.url, { token: server.token('42') });
  const messages = ['an EmitStream broke', 'refused a request of a device'];
  const next = () => server.log.find((line) => messages.includes(line.message));
  const first = next();
  const ack = { mode: 'MODE_ALL', timeout: { seconds: 30 } };
  for (let n = 0; n < STREAMS; n += 1) {
    const arrived = once(device.socket, 'asked');
    const stream = server.backend.emitStream();
    const cancelled = once(stream, 'error');
    stream.write({ emit: { user_id: '42', event: 'asked', json: '1', options: { ack } } });
    await arrived;
    stream.cancel();
    await cancelled;
  }
  const line = await first;
  assert.deepEqual([line.message, line['api_key.name'], line['grpc.code']], [messages[0], 'tests', 'CANCELLED']);
  const count = /^bugle_grpc_streams_broken_total\{code="CANCELLED"\} (\d+)$/m;
  const counted = async () => Number(count.exec(await (await fetch(`${server.adminUrl}/metrics`)).text())?.[1]);
  while ((await counted()) !== STREAMS);
  // The others were within some seconds: the next line is of another event.
  const other = next();
  await fetch(`${server.url}/bugle/notifications`);
  assert.equal((await other).message, messages[1]);
});
