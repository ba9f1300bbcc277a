import { expect, test } from 'vitest';

import type { PositionMap, RoomResumed } from '../src/index.js';
import { Arrivals } from './harness/deadline.js';
import { Device, WEBSOCKET } from './harness/device.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

const STORE = { 'store.url': 'sqlite:bugle.db' };
const HISTORY = { rooms: [{ match: 'listing:*', history: { size: 5, age: '2m' } }] };
const KEPT = { store: true };

/** What outlives a page. */
class Session {
  positions: PositionMap = {};
  get = () => this.positions;
  set = (positions: PositionMap) => {
    this.positions = positions;
  };
}

function resumptions() {
  const resumed = new Arrivals<Record<string, RoomResumed>>('bugle:resumed');
  const gaps = new Arrivals<[string, RoomResumed]>('a gap');
  return { resumed, gaps, onResumed: resumed.push, onGap: (room: string, how: RoomResumed) => gaps.push([room, how]) };
}

async function emitNumbers(server: Server, from: number, to: number): Promise<number[]> {
  const numbers = Array.from({ length: to - from + 1 }, (_, index) => from + index);
  for (const number of numbers) expect(await server.backend.emit('1', 'note', number, KEPT)).toMatchObject({ stored: true });
  return numbers;
}

const payloads = async (device: Device, count: number) => (await device.messages.take(count)).map(({ payload }) => payload);

test('what was missed while the network was away comes in order, once, before what comes live', async () => {
  const server = await Server.start(STORE);
  const network = await Network.before(server.port);
  const { resumed, gaps, ...callbacks } = resumptions();
  const device = await Device.connected({ url: network.url, token: server.token('1'), ...callbacks });
  expect((await resumed.next())['user:1']).toMatchObject({ recovered: true, count: 0 });
  expect(await emitNumbers(server, 1, 3)).toEqual(await payloads(device, 3));
  await network.cut();
  await device.disconnected();
  await emitNumbers(server, 4, 30);
  await network.restore();
  await device.connected();
  await emitNumbers(server, 31, 33);
  expect(await payloads(device, 30)).toEqual(Array.from({ length: 30 }, (_, index) => index + 4));
  expect((await resumed.next())['user:1']).toMatchObject({ recovered: true, count: 27 });
  expect(gaps.drain()).toEqual([]);
  expect(device.messages.drain()).toEqual([]);
});

test('a connection that is reset again and again loses nothing and gets nothing twice', async () => {
  const server = await Server.start(STORE);
  const network = await Network.before(server.port);
  // It may be reset before it is told where it stands.
  const device = await Device.connected({ url: network.url, token: server.token('1'), socketOptions: WEBSOCKET });
  for (let number = 1; number <= 60; number += 1) {
    await server.backend.emit('1', 'note', number, KEPT);
    if (number % 7 === 0) network.drop();
  }
  expect(await payloads(device, 60)).toEqual(Array.from({ length: 60 }, (_, index) => index + 1));
  await server.backend.emit('1', 'note', 'last', KEPT);
  expect(await payloads(device, 1)).toEqual(['last']);
});

test('a kept message has an id, its room and its position; a plain one has none', async () => {
  const server = await Server.start(STORE);
  const device = await Device.connected({ url: server.url, token: server.token('1') });
  const receipt = await server.backend.emit('1', 'note', 'kept', KEPT);
  await server.backend.emit('1', 'note', 'plain');
  expect(await device.messages.take(2)).toEqual([
    { event: 'note', payload: 'kept', id: receipt.message_id, room: 'user:1', position: receipt.position, source: 'socket' },
    { event: 'note', payload: 'plain', source: 'socket' },
  ]);
});

test('a page that is loaded anew gets what it missed meanwhile, and nothing that it had', async () => {
  const server = await Server.start(STORE);
  const session = new Session();
  const options = { url: server.url, token: server.token('1'), storage: session };
  const page = await Device.connected(options);
  await emitNumbers(server, 1, 3);
  await page.messages.take(3);
  page.client.close();
  await expect.poll(() => server.backend.connectionsOf('1')).toBe(0);
  // Another device of the user takes it, so that it is not for want of a device that the page gets it.
  const other = await Device.connected({ url: server.url, token: server.token('1') });
  await emitNumbers(server, 4, 5);
  await other.messages.take(2);
  const { resumed, gaps, ...callbacks } = resumptions();
  const reloaded = await Device.connected({ ...options, ...callbacks });
  expect(await payloads(reloaded, 2)).toEqual([4, 5]);
  expect((await resumed.next())['user:1']).toMatchObject({ recovered: true, count: 2 });
  expect(reloaded.messages.drain()).toEqual([]);
  expect(gaps.drain()).toEqual([]);
});

test('a room with history is resumed, and is joined again by that alone', async () => {
  const rules = [{ event: 'subscribe:listing', join: 'listing:{arg}', rooms: 'any' }];
  const server = await Server.start({ ...HISTORY, client_events: rules });
  const network = await Network.before(server.port);
  const { resumed, gaps, ...callbacks } = resumptions();
  const device = await Device.connected({ url: network.url, token: server.token('1'), ...callbacks });
  await device.client.send('subscribe:listing', '7');
  const joined = await resumed.find((rooms) => 'listing:7' in rooms);
  expect(joined['listing:7']).toMatchObject({ recovered: true, count: 0, position: expect.any(String) });
  await network.cut();
  await device.disconnected();
  for (const price of [1, 2, 3]) await server.backend.emitToRoom('listing:7', 'price', price);
  await network.restore();
  expect(await payloads(device, 3)).toEqual([1, 2, 3]);
  await resumed.find((rooms) => rooms['listing:7']?.count === 3);
  await server.backend.emitToRoom('listing:7', 'price', 4);
  expect(await payloads(device, 1)).toEqual([4]);
  expect(gaps.drain()).toEqual([]);
});

test('a gap that cannot be filled is told, nothing of it is replayed, and the room goes on from there', async () => {
  const rules = [{ event: 'subscribe:listing', join: 'listing:{arg}', rooms: 'any' }];
  const server = await Server.start({ ...HISTORY, client_events: rules });
  const network = await Network.before(server.port);
  const { resumed, gaps, ...callbacks } = resumptions();
  const device = await Device.connected({ url: network.url, token: server.token('1'), ...callbacks });
  await device.client.send('subscribe:listing', '7');
  await resumed.find((rooms) => 'listing:7' in rooms);
  await network.cut();
  await device.disconnected();
  // One more than the history holds.
  for (const price of [1, 2, 3, 4, 5, 6]) await server.backend.emitToRoom('listing:7', 'price', price);
  await network.restore();
  expect(await gaps.next()).toEqual(['listing:7', { recovered: false, count: 0, position: expect.any(String) }]);
  await device.connected();
  await network.cut();
  await device.disconnected();
  await server.backend.emitToRoom('listing:7', 'price', 7);
  await network.restore();
  expect(await payloads(device, 1)).toEqual([7]);
  expect(gaps.drain()).toEqual([]);
});

test('a server that was started anew does not pretend to continue its history', async () => {
  const rules = [{ event: 'subscribe:listing', join: 'listing:{arg}', rooms: 'any' }];
  const server = await Server.start({ ...HISTORY, ...STORE, client_events: rules });
  const network = await Network.before(server.port);
  const { resumed, gaps, ...callbacks } = resumptions();
  const device = await Device.connected({ url: network.url, token: server.token('1'), ...callbacks });
  await device.client.send('subscribe:listing', '7');
  const before = await resumed.find((rooms) => 'listing:7' in rooms);
  await server.backend.emit('1', 'note', 'stored', KEPT);
  expect(await payloads(device, 1)).toEqual(['stored']);
  await network.cut();
  await device.disconnected();
  await server.kill();
  const successor = await Server.run(server.configuration);
  await successor.backend.emit('1', 'note', 'stored later', KEPT);
  await network.restore(successor.port);
  const [room, { position }] = await gaps.next();
  expect(room).toBe('listing:7');
  expect(position).not.toBe(before['listing:7']!.position);
  // What is on disk is continued.
  expect(await payloads(device, 1)).toEqual(['stored later']);
  expect(gaps.drain()).toEqual([]);
});

test('a room that was left and forgotten is not joined again', async () => {
  const rules = [
    { event: 'subscribe:listing', join: 'listing:{arg}', rooms: 'any' },
    { event: 'unsubscribe:listing', leave: 'listing:{arg}' },
  ];
  const server = await Server.start({ ...HISTORY, client_events: rules });
  const network = await Network.before(server.port);
  const { resumed, onResumed } = resumptions();
  const device = await Device.connected({ url: network.url, token: server.token('1'), onResumed, socketOptions: WEBSOCKET });
  for (const listing of ['7', '8']) {
    await device.client.send('subscribe:listing', listing);
    await resumed.find((rooms) => `listing:${listing}` in rooms);
  }
  await device.client.send('unsubscribe:listing', '7');
  device.client.forget('listing:7');
  network.drop();
  await device.disconnected();
  const rooms = await resumed.find((all) => 'listing:8' in all);
  expect(rooms).not.toHaveProperty('listing:7');
  expect(await server.backend.emitToRoom('listing:7', 'price', 1)).toMatchObject({ matched: 0 });
  expect(await server.backend.emitToRoom('listing:8', 'price', 1)).toMatchObject({ matched: 1 });
});
