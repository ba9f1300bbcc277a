import { markdownTable } from '../flapping/markdown.js';

const READ_HEADS = ['GET', 'entries', 'p50 ms', 'p95 ms', 'p99 ms'];
const SEND_HEADS = [
  'over', 'clientMessageId', 'callers', 'sends a second', 'p50 ms', 'p99 ms', 'CPU: Bugle', 'PostgreSQL', 'load generator', 'cores of others',
];

/** The figures as Markdown. CPU is that of each send; others: what else ran on the machine. */
export function tables({ reads, sends }) {
  const readTable = reads && markdownTable(READ_HEADS, reads.map(readRow), 1);
  const sendTable = sends && markdownTable(SEND_HEADS, sends.map(sendRow), 2);
  return [readTable, sendTable].filter(Boolean).join('\n');
}

function readRow({ title, entries, p50, p95, p99 }) {
  return [`\`${title}\``, entries === undefined ? '' : `${entries}`, ...[p50, p95, p99].map((number) => number.toFixed(2))];
}

function sendRow({ over, isKeyed, callers, rate, p50, p99, otherCores, ...cpu }) {
  const latencies = [p50, p99].map((number) => number.toFixed(1));
  const micros = [cpu.bugle, cpu.postgres, cpu.load].map((number) => `${Math.round(number)} µs`);
  return [over, isKeyed ? 'yes' : 'no', `${callers}`, Math.floor(rate).toLocaleString('en-US'), ...latencies, ...micros, otherCores.toFixed(1)];
}
