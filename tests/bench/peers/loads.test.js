import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bugleArguments } from './bench.js';
import { LOADS, planned } from './loads.js';
import { options } from './options.js';

const URLS = { devices: 'http://d', server: 'http://s', admin: 'http://a' };

test('what is asked for is said to bugle bench, and what is not asked for is left to it', () => {
  const [load] = planned({ only: ['room-paced'] });
  const given = bugleArguments(URLS, load, load.emits.node).join(' ');
  assert.equal(given, 'room --json --server http://s --devices-url http://d --admin http://a --devices 1000 --emits 20 --rate 5');
  const [connect] = planned({ only: ['connect'] });
  assert.doesNotMatch(bugleArguments(URLS, connect, connect.emits?.node).join(' '), /undefined|--emits/);
});

test('Python takes part in the load of memory only when asked to', () => {
  const contenders = (asked) => planned({ only: ['memory'], ...asked })[0].contenders;
  const without = ['bugle', 'bugle-plain', 'bugle-session', 'bugle-held', 'node', 'ws', 'nchan'];
  assert.deepEqual(contenders({}), without);
  assert.deepEqual(contenders({ pythonMemory: true }), [...without, 'python']);
  assert.equal(planned({ only: ['user'] })[0].contenders.length, 3);
});

test('nchan takes part where one emit is sent after the other', () => {
  const [load] = planned({ only: ['room-one'] });
  assert.deepEqual(load.contenders, ['bugle', 'node', 'nchan']);
  assert.equal(typeof load.measures.nchan, 'function');
  const given = bugleArguments(URLS, load, load.emits.bugle).join(' ');
  assert.match(given, /^room .* --devices 1000 --emits 400 --concurrency 1$/);
});

test('a quick run is a fraction of each load, never nothing, and judges nothing', () => {
  for (const load of planned({ only: Object.keys(LOADS), quick: true })) {
    assert.ok(load.devices < LOADS[load.name].devices, load.name);
    assert.ok(load.figures.every(({ times, atMost, noMoreThan }) => !times && !atMost && !noMoreThan), load.name);
    for (const count of Object.values(load.emits ?? {})) assert.ok(count >= 1 && Number.isInteger(count), load.name);
  }
});

test('a quick run of the memory load has a tenth of both numbers of connections', () => {
  const [{ from, devices, settleSeconds }] = planned({ only: ['memory'], quick: true });
  assert.deepEqual({ from, devices, settleSeconds }, { from: 500, devices: 1_500, settleSeconds: 1 });
});

test('without options everything is run in five rounds, quickly in one', () => {
  assert.equal(options([]).rounds, 5);
  assert.deepEqual(options([]).only, Object.keys(LOADS));
  assert.equal(options(['--quick']).rounds, 1);
  assert.equal(options(['--quick', '--rounds', '2']).rounds, 2);
});

test('figures of a part are not written into the README', () => {
  for (const part of [['--quick'], ['--only', 'user']]) assert.throws(() => options([...part, '--write']), /a whole run/);
  assert.equal(options(['--write']).write, true);
});

test('a quick run is not checked', () => {
  assert.throws(() => options(['--quick', '--check']), /not with --quick/);
});

test('an unknown load or no round at all is refused', () => {
  assert.throws(() => options(['--only', 'users']), /--only names users: known are connect, connect-unstored, user/);
  assert.throws(() => options(['--rounds', '0']), /--rounds is a whole number of at least 1/);
});
