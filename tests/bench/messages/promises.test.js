import assert from 'node:assert/strict';
import { test } from 'node:test';

import { busyMicros } from './clocks.js';
import { medians } from './medians.js';
import { broken } from './promises.js';
import { tables } from './table.js';

const read = (p50, p95, isPromised = true) => ({ title: 'conversations', entries: 50, isPromised, p50, p95, p99: 40 });
const sends = (over, rate) => ({ over, callers: 64, isKeyed: true, rate, p50: 9, p99: 30, bugle: 70, postgres: 80, load: 20, otherCores: 0.5 });

test('lists below the limit and one fast way of sending over REST keep all promises', () => {
  assert.deepEqual(broken({ reads: [read(1, 9.99), read(11, 12, false)], sends: [sends('REST', 1_999), sends('REST', 2_000)] }), []);
});

test('a median or a p95 at the limit breaks a promise', () => {
  assert.deepEqual(broken({ reads: [read(10, 11)] }), [
    'conversations: the median is 10.00 ms, and not below 10 ms',
    'conversations: the p95 is 11.00 ms, and not below 10 ms',
  ]);
  assert.equal(broken({ reads: [read(1, 10)] }).length, 1);
});

test('sends over Socket.IO do not make up for slow ones over REST', () => {
  const faults = broken({ sends: [sends('REST', 1_999.9), sends('Socket.IO', 3_000)] });
  assert.deepEqual(faults, ['REST: at most 1999 sends a second, and 2000 are promised']);
});

test('what was not measured breaks no promise', () => {
  assert.deepEqual(broken({}), []);
});

test('each number is the median of the rounds, and other values stay', () => {
  const rounds = [[sends('REST', 3)], [sends('REST', 1)], [sends('REST', 2)]];
  assert.deepEqual(medians(rounds), [sends('REST', 2)]);
  assert.equal(medians(rounds.slice(0, 2))[0].rate, 2);
});

test('only what was measured has a table', () => {
  assert.match(tables({ reads: [read(1, 2)] }), /^\| GET .*\n.*\n\| `conversations` \| +50 \| +1\.00 \| +2\.00 \| +40\.00 \|\n$/);
  assert.match(tables({ reads: [read(1, 2)], sends: [sends('REST', 2_345.6)] }), /\n\n\| over .*\n.*\n\| REST \| yes .* 2,345 /);
});

test('a machine is busy in all time but that of idle and iowait', () => {
  assert.equal(busyMicros('cpu  100 20 3 5000 700 4 5 6 50 60\ncpu0 1 1 1 1 1 1 1 1 1 1\n'), 138 * 10_000);
});
