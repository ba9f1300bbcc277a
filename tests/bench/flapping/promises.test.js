import assert from 'node:assert/strict';
import { test } from 'node:test';

import { distribution } from './figures.js';
import { broken } from './promises.js';

const WHOLE = { expected: 10, delivered: 10, duplicates: 0, duplicatesAfterDedupe: 0, disorder: 0, delayMs: { p99: 100 } };

function contender(name, { emits, ...load } = {}) {
  return {
    contender: name,
    emits: { sent: 10, answered: 10, storable: 5, stored: 5, refused: 0, reasons: [], ...emits },
    loads: { user: { ...WHOLE, ...load }, room: WHOLE },
  };
}

const RECOVERY = contender('recovery', { delayMs: { p99: 101 } });
RECOVERY.loads.room = { ...WHOLE, delayMs: { p99: 101 } };

test('a whole delivery that is faster than that of the rival breaks no promise', () => {
  assert.deepEqual(broken([contender('bugle'), RECOVERY]), []);
});

test('nothing is promised of the rivals, and without them there is no limit to the delay', () => {
  assert.deepEqual(broken([contender('bugle')]), []);
  assert.deepEqual(broken([contender('node', { delivered: 1 })]), []);
});

const FAULTS = {
  'a loss': [{ delivered: 9 }, /1 of 10 messages were lost/],
  'a repetition': [{ duplicates: 1 }, /1 messages came again, though/],
  'a repetition that no dedupe takes away': [{ duplicatesAfterDedupe: 1 }, /under another id/],
  'a disorder': [{ disorder: 1 }, /after a later one/],
  'a delay like that of the rival': [{ delayMs: { p99: 101 } }, /not below the 101.0 ms/],
  'a refused emit': [{ emits: { refused: 1, reasons: ['full'] } }, /1 emits were refused: full/],
  'an unanswered emit': [{ emits: { answered: 9 } }, /1 emits were not answered/],
  'an emit that was not stored': [{ emits: { stored: 4 } }, /1 emits were not stored/],
  'a failed stream': [{ emits: { failure: 'gone' } }, /the stream of emits failed: gone/],
};

for (const [fault, [figures, expected]] of Object.entries(FAULTS)) {
  test(`${fault} breaks a promise`, () => {
    const faults = broken([contender('bugle', figures), RECOVERY]);
    assert.equal(faults.length, 1);
    assert.match(faults[0], expected);
  });
}

test('percentiles are those of the nearest rank', () => {
  const samples = Array.from({ length: 200 }, (_, index) => 200 - index);
  assert.deepEqual(distribution(samples), { p50: 100, p95: 190, p99: 198, max: 200 });
  assert.deepEqual(distribution([]), { p50: null, p95: null, p99: null, max: null });
});
