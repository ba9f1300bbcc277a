import { expect, expectTypeOf, test } from 'vitest';

import { type Client, connect, type Message } from '../src/index.js';
import { Arrivals } from './harness/deadline.js';
import { Device } from './harness/device.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

const CLIENT_EVENTS = [
  { event: 'subscribe:listing', join: 'listing:{arg}', rooms: 'any' },
  { event: 'join:admin', join: 'backoffice', rooms: 'any', roles: ['admin'] },
];

test('messages arrive in the order in which they were sent, over every transport', async () => {
  const server = await Server.start();
  const devices = await Promise.all(
    [['polling'], ['websocket'], ['polling', 'websocket']].map((transports) =>
      Device.connected({ url: server.url, token: server.token('1'), socketOptions: { transports } }),
    ),
  );
  const payloads = Array.from({ length: 50 }, (_, number) => ({ number }));
  for (const payload of payloads) await server.backend.emit('1', 'note', payload);
  for (const device of devices) {
    const messages = await device.messages.take(payloads.length);
    expect(messages.map(({ payload }) => payload)).toEqual(payloads);
  }
});

test('a client event is answered', async () => {
  const server = await Server.start({ client_events: CLIENT_EVENTS });
  const { client, messages } = await Device.connected({ url: server.url, token: server.token('1') });
  expect(await client.send('subscribe:listing', 'l-7')).toEqual({ ok: true });
  await server.backend.emitToRoom('listing:l-7', 'listing:updated', { price: '10.00' });
  expect(await messages.next()).toMatchObject({ event: 'listing:updated', payload: { price: '10.00' } });
});

test('a refused client event rejects with the code of Bugle', async () => {
  const server = await Server.start({ client_events: CLIENT_EVENTS });
  const { client } = await Device.connected({ url: server.url, token: server.token('1') });
  await expect(client.send('join:admin')).rejects.toMatchObject({ name: 'BugleError', code: 'forbidden' });
  await expect(client.send('unheard of')).rejects.toMatchObject({ code: 'unknown_event' });
});

test('what is sent without a connection waits for one, and rejects when none comes in time', async () => {
  const server = await Server.start({ client_events: CLIENT_EVENTS });
  const network = await Network.before(server.port);
  const device = await Device.connected({ url: network.url, token: server.token('1') });
  await network.cut();
  await device.disconnected();
  await expect(device.client.send('subscribe:listing', 'l-7', { timeout: 10 })).rejects.toMatchObject({ code: 'no_answer' });
  const answer = device.client.send('subscribe:listing', 'l-8');
  await network.restore();
  expect(await answer).toEqual({ ok: true });
});

test('events are typed by the map that the app gives, and by Bugle', async () => {
  interface ShopEvents {
    'order:paid': { orderId: string };
  }
  const server = await Server.start();
  const client = connect<ShopEvents>({ url: server.url, token: server.token('1') });
  const paid = new Arrivals<string>('a paid order');
  const welcome = new Arrivals<string>('the welcome');
  client.on('order:paid', (order, message) => {
    expectTypeOf(order).toEqualTypeOf<{ orderId: string }>();
    expectTypeOf(message).toEqualTypeOf<Message<{ orderId: string }>>();
    paid.push(order.orderId);
  });
  client.on('connected', ({ userId }) => welcome.push(userId));
  // @ts-expect-error -- no such event
  client.on('order:payed', () => {});
  expectTypeOf<Parameters<Client['on']>[0]>().toEqualTypeOf<string>();
  expect(await welcome.next()).toBe('1');
  await server.backend.emit('1', 'order:paid', { orderId: 'o-1' });
  expect(await paid.next()).toBe('o-1');
  client.close();
});
