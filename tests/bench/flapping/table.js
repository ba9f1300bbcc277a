import { CONTENDERS } from './contenders.js';
import { LOADS } from './loads.js';
import { markdownTable } from './markdown.js';

const HEADS = [
  'server', 'load', 'delivered', 'duplicates', 'after dedupe', 'disorder', 'p50 ms', 'p99 ms', 'max ms', 'caught up', 'p50 ms', 'p99 ms',
];

/** The figures as Markdown. Caught up: what was emitted before the device was back, and how long from then until it had it. */
export function table(all) {
  const rows = all.flatMap((own) => LOADS.map(({ name }) => row(own, name)));
  return markdownTable(HEADS, rows, 2);
}

function row({ contender, loads }, name) {
  const { deliveredPercent, duplicates, duplicatesAfterDedupe, disorder, delayMs, caughtUp, catchUpMs } = loads[name];
  const counts = [duplicates, duplicatesAfterDedupe, disorder].map(String);
  const delays = [delayMs.p50, delayMs.p99, delayMs.max].map(milliseconds);
  const catchUps = [catchUpMs.p50, catchUpMs.p99].map(milliseconds);
  return [CONTENDERS[contender].title, name, percent(deliveredPercent), ...counts, ...delays, `${caughtUp}`, ...catchUps];
}

/** Rounded down: what is not whole never looks so. */
function percent(number) {
  return `${(Math.floor(number * 100) / 100).toFixed(2)} %`;
}

function milliseconds(number) {
  return number === null ? '' : number.toFixed(number < 100 ? 1 : 0);
}
