import assert from 'node:assert/strict';
import { test } from 'node:test';

import { median, rowsOf } from './figures.js';

const spent = { name: 'spent', unit: 'µs', of: (result) => result.spent };
const done = { name: 'done', unit: '/s', isRate: true, of: (result) => result.done };

function row(figure, results) {
  const load = { name: 'load', title: () => 'a load', figures: [figure] };
  return rowsOf(load, results)[0];
}

const of = (field, ...values) => values.map((value) => ({ [field]: value }));

test('the median is the middle one, or the mean of the two in the middle', () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([100, 9, 2, 3]), 6);
  assert.equal(median([7]), 7);
});

test('what is spent compares by how many times less it is, and by the medians', () => {
  const { medians, times } = row(spent, { bugle: of('spent', 10, 1_000, 10), node: of('spent', 60, 50, 70), python: of('spent', 300, 400, 1) });
  assert.deepEqual(medians, { bugle: 10, node: 60, python: 300 });
  assert.deepEqual(times, { node: 6, python: 30 });
});

test('what is done in a second compares by how many times more it is', () => {
  assert.equal(row(done, { bugle: of('done', 100), node: of('done', 25) }).times.node, 4);
});

test('without a contender there is nothing beside it, and without a target nothing to meet', () => {
  const { times, target, isMet } = row(spent, { bugle: of('spent', 10), node: of('spent', 60) });
  assert.equal(times.python, undefined);
  assert.deepEqual([target, isMet], [undefined, undefined]);
});

test('a target beside Node is met from that ratio on', () => {
  const beside = (node) => row({ ...spent, times: 5 }, { bugle: of('spent', 10), node: of('spent', node) });
  assert.equal(beside(50).isMet, true);
  assert.equal(beside(49.9).isMet, false);
  assert.equal(beside(50).target, '≥ 5 × Node');
});

test('two targets of one figure must both be met', () => {
  const memory = { ...spent, unit: 'KiB', times: 1, atMost: 16 };
  const beside = (own, node) => row(memory, { bugle: of('spent', own), node: of('spent', node) });
  assert.equal(beside(16, 17).isMet, true);
  assert.equal(beside(16, 16).isMet, false);
  assert.equal(beside(17, 30).isMet, false);
  assert.equal(beside(16, 17).target, 'less than Node, ≤ 16 KiB');
});

test('a target beside nchan is met up to its own figure', () => {
  const beside = (own) => row({ ...spent, noMoreThan: 'nchan' }, { bugle: of('spent', own), nchan: of('spent', 10) });
  assert.deepEqual([beside(10).isMet, beside(10.1).isMet], [true, false]);
  assert.equal(beside(10).target, '≤ nchan');
  assert.equal(beside(10).times.nchan, 1);
});

test('a figure that was not measured, or not finely enough, is an error that names it', () => {
  for (const value of [null, undefined, 0, NaN, Infinity]) {
    assert.throws(() => row(spent, { bugle: of('spent', 10, value) }), /bugle, load: .*"spent"/, `${value}`);
  }
});
