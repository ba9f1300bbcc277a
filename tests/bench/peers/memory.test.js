import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';

import { rowsOf } from './figures.js';
import { planned } from './loads.js';
import { corrected, payload, percentile } from './nchan_room.js';
import { cpuMicros, residentKib, ticksOf } from './process.js';
import { table } from './table.js';

/** 10 KiB for each device from 5,000 on. */
const RESULT = { from: 5_000, devices: 15_000, kib: { start: 1_000, few: 53_000, all: 153_000, again: 160_650, left: 16_000 } };

test('memory is the slope between two numbers of connections, the second cycle beside the first, and what is left', () => {
  const [load] = planned({ only: ['memory'] });
  const rows = rowsOf(load, { bugle: [RESULT], ws: [RESULT] });
  assert.deepEqual(rows.map(({ medians }) => Object.values(medians)[0]), [10, 1.05, 1, 10, 1.05, 1]);
  assert.deepEqual(rows.map(({ isMet }) => isMet), [false, true, true, undefined, undefined, undefined]);
});

test('each way to connect to Bugle has its own target', () => {
  const [load] = planned({ only: ['memory'] });
  const targets = (name) => rowsOf(load, { [name]: [RESULT] }).map(({ target }) => target);
  assert.deepEqual(targets('bugle'), ['≤ 9 KiB', '≤ 1.05 ×', '≤ 1 KiB']);
  assert.deepEqual(targets('bugle-plain'), ['≤ 4.5 KiB', undefined, undefined]);
  assert.deepEqual(targets('bugle-session'), ['≤ 3 KiB', undefined, undefined]);
  assert.deepEqual(targets('bugle-held'), [undefined, undefined, undefined]);
});

test('memory that a process has given back is a figure too', () => {
  const [load] = planned({ only: ['memory'] });
  const less = { ...RESULT, kib: { ...RESULT.kib, left: 850 } };
  assert.equal(rowsOf(load, { bugle: [less] })[2].medians.bugle, -0.01);
});

test('the table of memory has a row for each contender, below the table of the others', () => {
  const [load] = planned({ only: ['memory'] });
  const rows = rowsOf(load, { bugle: [RESULT], ws: [RESULT] });
  const lines = table(rows).trim().split('\n').map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()));
  assert.deepEqual(lines[0], ['resident memory, 5,000 to 15,000 idle connections', 'each', 'all a second time', 'each, once all have left', 'target', 'met']);
  assert.deepEqual(lines[2], ['Bugle, Socket.IO over WebSocket', '10.0 KiB', '1.05 ×', '1.00 KiB', '≤ 9 KiB, ≤ 1.05 ×, ≤ 1 KiB', 'missed']);
  assert.deepEqual(lines[3], ['Node, ws alone', '10.0 KiB', '1.05 ×', '1.00 KiB', '', '']);
  const other = { title: 'a load', figure: 'spent', unit: 'µs', medians: { bugle: 1 }, times: {} };
  assert.match(table([...rows, other]), /^\| load .*\n\n\| resident memory/s);
});

test('a process counts with its children', async () => {
  const parent = spawn('sh', ['-c', 'sleep 60 & echo ready; wait'], { stdio: ['ignore', 'pipe', 'ignore'], detached: true });
  try {
    await once(parent.stdout, 'data');
    assert.ok(residentKib(parent.pid) > 0);
    assert.equal(cpuMicros(parent.pid) % 10_000, 0);
    const alone = spawn('sleep', ['60']);
    await once(alone, 'spawn');
    assert.ok(residentKib(parent.pid) > residentKib(alone.pid));
    alone.kill();
  } finally {
    process.kill(-parent.pid);
  }
});

test('processor time is that of a process and of its children that have ended, whatever it is called', () => {
  assert.equal(ticksOf('7 (a ) b) S 1 7 7 0 -1 4194560 300 0 0 0 150 25 7 3 20 0 3 0 100 1000 200'), 185);
});

test('the payload for nchan has the bytes of the one that bugle bench sends by default', () => {
  for (const [at, number] of [[0, 0], [123_456.789, 4_321]]) {
    assert.equal(Buffer.byteLength(payload(at, number)), 100);
    assert.equal(JSON.parse(payload(at, number)).n, number);
  }
});

test('a long wait counts for the emits that it kept from being sent', () => {
  assert.deepEqual(corrected([1, 2, 9], 3), [1, 2, 9, 6, 3]);
  assert.equal(percentile([4, 1, 3, 2], 0.5), 2);
  assert.equal(percentile([4, 1, 3, 2], 0.99), 4);
});
