import { expect, test } from 'vitest';

import { type BugleError, Client, type Message, type Options, type PositionMap } from '../src/index.js';
import { Arrivals } from './harness/deadline.js';

/** A client without a server, to which packets come as Socket.IO hands them. */
function client(options: Partial<Options> = {}) {
  const positions = new Arrivals<PositionMap>('a write of positions');
  const errors = new Arrivals<BugleError>('an error');
  const storage = { get: () => ({}), set: positions.push };
  const made = new Client({ url: 'http://127.0.0.1:1', token: 't', storage, onError: errors.push, ...options });
  const packet = (...args: unknown[]) => made.socket.listenersAny().forEach((listener) => listener(...args));
  return { client: made, packet, positions, errors };
}

const meta = (id: string, position: string) => ({ id, room: 'user:1', position });

test('a kept message that comes twice is handed once, and acknowledged each time', () => {
  const handed: unknown[] = [];
  const { client: device, packet } = client();
  device.on('note', (payload) => handed.push(payload));
  const acknowledged: unknown[][] = [];
  packet('note', 'first', meta('a', 'e.1'));
  packet('note', 'second', meta('b', 'e.2'));
  packet('note', 'first', meta('a', 'e.1'), (...reply: unknown[]) => acknowledged.push(reply));
  expect(handed).toEqual(['first', 'second']);
  expect(acknowledged).toEqual([[]]);
});

test('messages that are not kept are handed each time', () => {
  const handed: unknown[] = [];
  const { client: device, packet } = client();
  device.on('note', (payload) => handed.push(payload));
  packet('note', 'same');
  packet('note', 'same');
  expect(handed).toEqual(['same', 'same']);
});

test('ids are forgotten in the order in which they came, past ten thousand of them', () => {
  let handed = 0;
  const { client: device, packet } = client();
  device.on('note', () => (handed += 1));
  for (let number = 0; number <= 10_000; number += 1) packet('note', null, meta(`id-${number}`, `e.${number}`));
  handed = 0;
  packet('note', null, meta('id-1', 'e.1'));
  expect(handed).toBe(0);
  packet('note', null, meta('id-0', 'e.0'));
  expect(handed).toBe(1);
});

test('the position has not moved while a handler is given its message, and has afterwards', async () => {
  const { client: device, packet, positions } = client();
  const writtenBefore: number[] = [];
  device.on('note', () => writtenBefore.push(positions.drain().length));
  packet('note', 1, meta('a', 'e.1'));
  expect(writtenBefore).toEqual([0]);
  expect(await positions.next()).toEqual({ 'user:1': 'e.1' });
});

test('a handler knows what it was given, with and without what identifies a kept message', () => {
  const messages: Message[] = [];
  const { client: device, packet } = client();
  device.on('note', (_, message) => messages.push(message));
  packet('note', null, meta('a', 'e.1'));
  packet('note', { room: 'x' });
  expect(messages).toEqual([
    { event: 'note', payload: null, id: 'a', room: 'user:1', position: 'e.1', source: 'socket' },
    { event: 'note', payload: { room: 'x' }, source: 'socket' },
  ]);
});

test('a handler that throws, or rejects, is reported, and the others are given the message', async () => {
  const handed: unknown[] = [];
  const { client: device, packet, positions, errors } = client({ onMessage: ({ payload }) => handed.push(payload) });
  const fault = new Error('thrown');
  device.on('note', () => {
    throw fault;
  });
  device.on('note', () => Promise.reject(fault));
  device.on('note', (payload) => handed.push(payload));
  packet('note', 1, meta('a', 'e.1'));
  expect(handed).toEqual([1, 1]);
  for (const error of await errors.take(2)) expect(error).toMatchObject({ code: 'handler', cause: fault });
  expect(await positions.next()).toEqual({ 'user:1': 'e.1' });
});

test('a handler that takes itself out is not called again; one that was added twice is called twice', () => {
  let once = 0;
  let twice = 0;
  const { client: device, packet } = client();
  const off = device.on('note', () => {
    once += 1;
    off();
  });
  const count = () => (twice += 1);
  const offFirst = device.on('note', count);
  device.on('note', count);
  packet('note');
  offFirst();
  offFirst();
  packet('note');
  expect({ once, twice }).toEqual({ once: 1, twice: 3 });
});

test("Bugle's own events go to handlers, and not to onMessage", () => {
  const messages: Message[] = [];
  const counts: number[] = [];
  const { client: device, packet } = client({ onMessage: (message) => messages.push(message) });
  device.on('bugle:unread', ({ count }) => counts.push(count));
  packet('bugle:unread', { room: 'user:1', count: 3 });
  expect(counts).toEqual([3]);
  expect(messages).toEqual([]);
});

test('a gap is told with the room; a recovered room is not', () => {
  const gaps: unknown[] = [];
  const resumed: unknown[] = [];
  const { packet } = client({ onGap: (room, { position }) => gaps.push([room, position]), onResumed: (rooms) => resumed.push(rooms) });
  const rooms = {
    'user:1': { recovered: true, count: 2, position: 'e.2' },
    'listing:7': { recovered: false, count: 0, position: 'f.9' },
    'listing:8': { recovered: false, count: 0 },
  };
  packet('bugle:resumed', { rooms });
  expect(resumed).toEqual([rooms]);
  expect(gaps).toEqual([['listing:7', 'f.9'], ['listing:8', undefined]]);
});

test('an address with a path is refused: Socket.IO would take it for a namespace', () => {
  expect(() => new Client({ url: 'https://app.example.com/ws', token: 't' })).toThrow(TypeError);
});
