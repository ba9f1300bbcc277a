import assert from 'node:assert/strict';
import { test } from 'node:test';

import { nameOf, pairwise, product } from './harness/pairwise.js';

const FACTORS = { client: ['2.x', '3.x', '4.x'], way: ['polling', 'websocket'], delay: [0, 10, 40] };
const isPossible = ({ client, way }) => client !== '2.x' || way !== 'websocket';

test('each pair of values that is possible is in a row', () => {
  const all = product(FACTORS, isPossible);
  const few = pairwise(FACTORS, isPossible);
  assert.equal(all.length, 15);
  assert.ok(few.length < 12, `${few.length} rows`);
  assert.ok(few.every(isPossible));
  for (const row of all) {
    for (const [one, other] of [['client', 'way'], ['client', 'delay'], ['way', 'delay']]) {
      assert.ok(few.some((chosen) => chosen[one] === row[one] && chosen[other] === row[other]), `${row[one]}, ${row[other]}`);
    }
  }
});

test('a row is named by its values', () => {
  assert.equal(nameOf({ client: '4.x', way: 'polling', delay: 40 }), '4.x, polling, 40 ms away');
});
