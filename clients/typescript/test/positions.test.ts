import { expect, test } from 'vitest';

import type { PositionMap, PositionStorage } from '../src/index.js';
import { webStorage } from '../src/index.js';
import { Positions } from '../src/positions.js';
import { Arrivals } from './harness/deadline.js';

function inMemory(): Positions {
  return new Positions(undefined, () => expect.unreachable());
}

test('a position moves forward within its epoch, also past what a double can count', () => {
  const positions = inMemory();
  positions.handed('room', 'e.9007199254740993');
  positions.handed('room', 'e.9007199254740992');
  positions.handed('room', 'e.7');
  expect(positions.resume()).toEqual({ room: 'e.9007199254740993' });
  positions.handed('room', 'e.10000000000000000');
  expect(positions.resume()).toEqual({ room: 'e.10000000000000000' });
});

test('a new epoch replaces the one before, also with a lower number and with dots in it', () => {
  const positions = inMemory();
  positions.handed('room', 'a.1.50');
  positions.handed('room', 'a.2.3');
  expect(positions.resume()).toEqual({ room: 'a.2.3' });
});

test('what Bugle says of a recovered room never moves its position back', () => {
  const positions = inMemory();
  positions.handed('room', 'e.5');
  positions.resumed('room', { recovered: true, count: 0, position: 'e.4' });
  expect(positions.resume()).toEqual({ room: 'e.5' });
  positions.resumed('room', { recovered: true, count: 2, position: 'e.7' });
  expect(positions.resume()).toEqual({ room: 'e.7' });
});

test('after a gap the position that Bugle gives is adopted, also a lower one of the same epoch', () => {
  const positions = inMemory();
  positions.handed('room', 'e.500');
  positions.resume();
  positions.resumed('room', { recovered: false, count: 0, position: 'e.3' });
  expect(positions.resume()).toEqual({ room: 'e.3' });
});

test('after a gap the position does not go back to before what this connection has brought', () => {
  const positions = inMemory();
  positions.resume();
  positions.handed('room', 'e.4');
  positions.resumed('room', { recovered: false, count: 0, position: 'e.3' });
  expect(positions.resume()).toEqual({ room: 'e.4' });
});

test('a room that the connection is not in is not resumed again', () => {
  const positions = inMemory();
  positions.handed('room', 'e.5');
  positions.handed('other', 'e.1');
  positions.resumed('room', { recovered: false, count: 0 });
  expect(positions.resume()).toEqual({ other: 'e.1' });
});

test('one room is forgotten, or all of them', () => {
  const positions = inMemory();
  for (const room of ['a', 'b', 'c']) positions.handed(room, 'e.1');
  positions.forget('b');
  expect(positions.resume()).toEqual({ a: 'e.1', c: 'e.1' });
  positions.forget();
  expect(positions.resume()).toEqual({});
});

test('a slow storage is written once at a time, and ends with the newest state', async () => {
  const writes = new Arrivals<{ positions: PositionMap; done: () => void }>('a write');
  const storage: PositionStorage = {
    get: () => Promise.resolve({ room: 'e.1' }),
    set: (positions) => new Promise((done) => writes.push({ positions, done })),
  };
  const positions = new Positions(storage, () => expect.unreachable());
  await positions.load();
  expect(positions.resume()).toEqual({ room: 'e.1' });
  for (const number of [2, 3, 4]) positions.handed('room', `e.${number}`);
  const first = await writes.next();
  expect(first.positions).toEqual({ room: 'e.2' });
  expect(writes.drain()).toEqual([]);
  first.done();
  const second = await writes.next();
  expect(second.positions).toEqual({ room: 'e.4' });
});

test('a storage that fails is reported, and positions are kept in memory', async () => {
  const failures = new Arrivals<unknown>('a failure');
  const storage: PositionStorage = {
    get: () => Promise.reject(new Error('cannot read')),
    set: () => {
      throw new Error('cannot write');
    },
  };
  const positions = new Positions(storage, failures.push);
  await positions.load();
  expect(await failures.next()).toMatchObject({ message: 'cannot read' });
  positions.handed('room', 'e.1');
  expect(await failures.next()).toMatchObject({ message: 'cannot write' });
  expect(positions.resume()).toEqual({ room: 'e.1' });
});

test('web storage gives back what was set, and nothing at first', () => {
  const items = new Map<string, string>();
  const area = { getItem: (key: string) => items.get(key) ?? null, setItem: (key: string, value: string) => void items.set(key, value) };
  const storage = webStorage(area, 'bugle:42');
  expect(storage.get()).toEqual({});
  void storage.set({ room: 'e.1' });
  expect(webStorage(area, 'bugle:42').get()).toEqual({ room: 'e.1' });
  expect(webStorage(area, 'bugle:43').get()).toEqual({});
});
