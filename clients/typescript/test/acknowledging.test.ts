import { expect, onTestFinished, test } from 'vitest';

import { connect } from '../src/index.js';
import { Arrivals } from './harness/deadline.js';
import { Device } from './harness/device.js';
import { Server } from './harness/server.js';

const ASKED = { ack: { mode: 'MODE_ALL', timeout: { seconds: 5 } } };
const ASKED_BRIEFLY = { ack: { mode: 'MODE_ALL', timeout: { nanos: 200_000_000 } } };

test('a message is acknowledged when its handlers have taken it, with what the first of them replies', async () => {
  const server = await Server.start();
  const { client } = await Device.connected({ url: server.url, token: server.token('1'), onMessage: () => 'of onMessage' });
  client.on('order', () => undefined);
  client.on('order', async ({ orderId }) => ({ accepted: orderId }));
  client.on('order', () => 'too late');
  const { acks } = await server.backend.emit('1', 'order', { orderId: 'o-1' }, ASKED);
  expect(acks).toMatchObject([{ outcome: 'OUTCOME_REPLIED' }]);
  expect(JSON.parse(acks[0]!.json)).toEqual([{ accepted: 'o-1' }]);
});

test('handlers without a reply acknowledge without one', async () => {
  const server = await Server.start();
  await Device.connected({ url: server.url, token: server.token('1') });
  const { acks } = await server.backend.emit('1', 'order', 1, ASKED);
  expect(acks).toMatchObject([{ outcome: 'OUTCOME_REPLIED', json: '[]' }]);
});

test('a stored message is acknowledged too', async () => {
  const server = await Server.start({ 'store.url': 'sqlite:bugle.db' });
  const { client, messages } = await Device.connected({ url: server.url, token: server.token('1') });
  client.on('order', () => 'taken');
  const receipt = await server.backend.emit('1', 'order', 1, { ...ASKED, store: true });
  expect(receipt.acks).toMatchObject([{ outcome: 'OUTCOME_REPLIED', json: '["taken"]' }]);
  expect(await messages.next()).toMatchObject({ id: receipt.message_id, position: receipt.position });
});

test('a message that a handler failed to take is not acknowledged', async () => {
  const server = await Server.start();
  const { client, errors } = await Device.connected({ url: server.url, token: server.token('1') });
  client.on('order', () => Promise.reject(new Error('no disk')));
  const { acks } = await server.backend.emit('1', 'order', 1, ASKED_BRIEFLY);
  expect(acks).toMatchObject([{ outcome: 'OUTCOME_TIMEOUT' }]);
  expect(await errors.next()).toMatchObject({ code: 'handler', cause: { message: 'no disk' } });
});

test('a message that nobody listens to is not acknowledged', async () => {
  const server = await Server.start();
  const client = connect({ url: server.url, token: server.token('1') });
  onTestFinished(() => client.close());
  const welcomes = new Arrivals<unknown>('the welcome');
  client.on('connected', welcomes.push);
  await welcomes.next();
  const { acks } = await server.backend.emit('1', 'order', 1, ASKED_BRIEFLY);
  expect(acks).toMatchObject([{ outcome: 'OUTCOME_TIMEOUT' }]);
});

test('a reply that comes after the connection was lost is sent on no other', async () => {
  const server = await Server.start();
  const device = await Device.connected({ url: server.url, token: server.token('1') });
  const handlers = new Arrivals<(reply: string) => void>('a handler at work');
  device.client.on('order', () => new Promise<string>((resolve) => handlers.push(resolve)));
  const first = server.backend.emit('1', 'order', 1, ASKED);
  const replyToFirst = await handlers.next();
  device.client.close();
  device.client.open();
  await device.connected();
  const second = server.backend.emit('1', 'order', 2, ASKED);
  const replyToSecond = await handlers.next();
  replyToFirst('of the first');
  // The reply has had its turn of the event loop before the next answer of the server.
  await expect(device.client.send('unheard of')).rejects.toMatchObject({ code: 'unknown_event' });
  replyToSecond('of the second');
  expect((await first).acks).toMatchObject([{ outcome: 'OUTCOME_GONE' }]);
  expect((await second).acks).toMatchObject([{ outcome: 'OUTCOME_REPLIED', json: '["of the second"]' }]);
});
