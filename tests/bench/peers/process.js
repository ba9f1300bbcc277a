import { readFileSync } from 'node:fs';

/** The kernel counts processor time in hundredths of a second (USER_HZ). */
const MICROS_PER_TICK = 10_000;

/** The resident memory of a process and its descendants, in KiB. What two of them share counts twice. */
export function residentKib(pid) {
  return sumOf(pid, (each) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${each}/status`, 'utf8'))[1]));
}

/** The processor time of a process and its descendants, their own and the kernel's for them, in microseconds. */
export function cpuMicros(pid) {
  return sumOf(pid, (each) => ticksOf(readFileSync(`/proc/${each}/stat`, 'utf8'))) * MICROS_PER_TICK;
}

/** utime and stime, the 14th and the 15th field; the second one is the name in brackets, which may have blanks in it. */
export function ticksOf(stat) {
  const fields = stat.slice(stat.lastIndexOf(') ') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function sumOf(pid, valueOf) {
  return treeOf(pid).reduce((sum, each) => sum + valueOf(each), 0);
}

function treeOf(pid) {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  return [pid, ...children.flatMap(treeOf)];
}
