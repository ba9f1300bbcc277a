import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Tally, total } from './devices/tally.js';

function taken(...numbers) {
  const tally = new Tally();
  for (const number of numbers) tally.take({ number, emittedAt: 10, takenAt: 15, connectedAt: 0 });
  const { delivered, duplicatesAfterDedupe, disorder } = tally;
  return { delivered, duplicatesAfterDedupe, disorder };
}

test('what is taken once and in order is delivered, and a gap is no disorder', () => {
  assert.deepEqual(taken(0, 1, 5), { delivered: 3, duplicatesAfterDedupe: 0, disorder: 0 });
});

test('what is taken again is a duplicate, and not one more delivery', () => {
  assert.deepEqual(taken(0, 1, 0, 0), { delivered: 2, duplicatesAfterDedupe: 2, disorder: 0 });
});

test('each message that is taken after a later one is out of order', () => {
  assert.deepEqual(taken(3, 1, 2, 7), { delivered: 4, duplicatesAfterDedupe: 0, disorder: 2 });
});

test('what arrives again is a duplicate, whether it is taken or not', () => {
  const tally = new Tally();
  for (const number of [0, 1, 0, 1]) tally.arrive(number);
  assert.equal(tally.duplicates, 2);
  assert.equal(tally.duplicatesAfterDedupe, 0);
  assert.equal(tally.delivered, 0);
});

test('what was emitted before the connection is caught up, counted from its beginning', () => {
  const tally = new Tally();
  tally.take({ number: 0, emittedAt: 10, connectedAt: 5, takenAt: 12 });
  tally.take({ number: 1, emittedAt: 20, connectedAt: 30, takenAt: 34 });
  const { delivered, delays, catchUps } = total([tally, new Tally()]);
  assert.equal(delivered, 2);
  assert.deepEqual([...delays], [2, 14]);
  assert.deepEqual([...catchUps], [4]);
});
