import assert from 'node:assert/strict';
import { test } from 'node:test';

import { chart } from './chart.js';
import { captionOf, replaced, section } from './readme.js';
import { table } from './table.js';
import { multiple, quantity } from './texts.js';

const MEASURED = { hardware: 'a <machine>', software: 'Bugle 1', date: '2026-01-31' };

const ROW = {
  title: 'EmitToRoom, <5> & more',
  figure: 'server CPU per delivery',
  unit: 'µs',
  isDrawn: true,
  medians: { bugle: 2, node: 12, python: 40 },
  times: { node: 6, python: 20 },
  target: '≥ 5 × Node',
  isMet: true,
};

test('quantities have three digits, and large ones all', () => {
  assert.equal(quantity(5.4, 'µs'), '5.40 µs');
  assert.equal(quantity(0.01234, 'ms'), '0.0123 ms');
  assert.equal(quantity(99.96, 'µs'), '100 µs');
  assert.equal(quantity(12_345.6, '/s'), '12,346 /s');
  assert.equal(quantity(undefined, 'µs'), '');
});

test('a ratio never looks larger than it is', () => {
  assert.equal(multiple(4.999), '4.9 ×');
  assert.equal(multiple(5), '5.0 ×');
  assert.equal(multiple(11.99), '11 ×');
  assert.equal(multiple(undefined), '');
});

test('the table has a row for each figure', () => {
  const alone = { ...ROW, medians: { bugle: 2, node: 12 }, times: { node: 6 }, target: undefined, isMet: undefined };
  const rows = [ROW, { ...ROW, isMet: false }, alone].map((row) => table([row]).split('\n')[2]);
  const cells = rows.map((row) => row.split('|').slice(3, -1).map((cell) => cell.trim()));
  assert.deepEqual(cells[0], ['2.00 µs', '12.0 µs', '40.0 µs', '6.0 ×', '20 ×', '≥ 5 × Node', 'yes']);
  assert.equal(cells[1].at(-1), 'missed');
  assert.deepEqual(cells[2], ['2.00 µs', '12.0 µs', '6.0 ×', '', '']);
});

test('a contender that did not take part in a load has empty cells, and no column if it took part in none', () => {
  const beside = { ...ROW, medians: { bugle: 2, nchan: 3 }, times: { nchan: 1.5 } };
  const [heads, , first, second] = table([ROW, beside]).split('\n').map((line) => line.split('|').slice(3, -1).map((cell) => cell.trim()));
  assert.deepEqual(heads, ['Bugle', 'Node', 'Python', 'nchan', 'beside Node', 'beside Python', 'beside nchan', 'target', 'met']);
  assert.deepEqual(first.slice(0, 7), ['2.00 µs', '12.0 µs', '40.0 µs', '', '6.0 ×', '20 ×', '']);
  assert.deepEqual(second.slice(0, 7), ['2.00 µs', '', '', '3.00 µs', '', '', '1.5 ×']);
});

test('the picture has a bar as long as its multiple for each contender, and escapes its texts', () => {
  const picture = chart([ROW, { ...ROW, isDrawn: false }], MEASURED);
  const bars = [...picture.matchAll(/<rect x="250" y="\d+" width="([\d.]+)" height="18"/g)].map(([, width]) => Number(width));
  assert.equal(bars.length, 3);
  assert.ok(Math.abs(bars[1] / bars[0] - 6) < 0.05, `${bars}`);
  assert.ok(Math.abs(bars[2] / bars[0] - 20) < 0.1, `${bars}`);
  for (const text of ['EmitToRoom, &lt;5&gt; &amp; more', '6.0 × (12.0 µs)', 'Measured on a &lt;machine&gt;', '2026-01-31']) {
    assert.ok(picture.includes(text), text);
  }
  assert.doesNotMatch(picture, /<script|NaN|undefined/);
});

test('a contender that did not take part has no bar and no place in the legend', () => {
  const picture = chart([{ ...ROW, medians: { bugle: 2, node: 12 }, times: { node: 6 } }], MEASURED);
  assert.doesNotMatch(picture, />Python</);
  assert.match(picture, />Node</);
});

test('what is between the markers of the README is replaced, again and again, and nothing else is', () => {
  const readme = 'before\n<!-- peers -->\nold\n<!-- /peers -->\nafter\n';
  const once = replaced(readme, 'new\n');
  assert.equal(once, 'before\n<!-- peers -->\n\nnew\n\n<!-- /peers -->\nafter\n');
  assert.equal(replaced(once, 'new\n'), once);
});

test('a README without its markers, or with them the wrong way round, is left alone', () => {
  for (const readme of ['', '<!-- peers -->', '<!-- /peers --><!-- peers -->']) assert.throws(() => replaced(readme, ''), /README.md has no/);
});

test('the section of the README shows the picture below the table', () => {
  assert.match(section({ table: '| a |\n', picture: 'figures.svg', caption: 'On it.' }), /^\| a \|\n\n!\[.+\]\(figures\.svg\)\n\nOn it\.\n$/);
});

test('the caption says of how many rounds the figures are', () => {
  assert.equal(captionOf(MEASURED, 5), 'Medians of 5 rounds in turn on a <machine>; Bugle 1; 2026-01-31.');
  assert.match(captionOf(MEASURED, 1), /^One round in turn on/);
});
