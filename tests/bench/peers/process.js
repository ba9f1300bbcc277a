import { readFileSync } from 'node:fs';

/** The kernel counts processor time in hundredths of a second (USER_HZ). */
const MICROS_PER_TICK = 10_000;

/** The resident memory of a process and its descendants, in KiB. What two of them share counts twice. */
export function residentKib(pid) {
  return sumOf(pid, (each) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${each}/status`, 'utf8'))[1]));
}

/**
 * The processor time of a process and its descendants, their own and the kernel's for them, in microseconds. Those that have ended count, once their
 * parent has waited for them.
 */
export function cpuMicros(pid) {
  return sumOf(pid, (each) => ticksOf(readFileSync(`/proc/${each}/stat`, 'utf8'))) * MICROS_PER_TICK;
}

/** utime, stime, cutime and cstime, from the 14th field on; the second one is the name in brackets, which may have blanks in it. */
export function ticksOf(stat) {
  const fields = stat.slice(stat.lastIndexOf(') ') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
}

function sumOf(pid, valueOf) {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  return children.reduce((sum, child) => sum + unlessEnded(() => sumOf(child, valueOf)), valueOf(pid));
}

/** The value of a child, or 0 if it has ended since its parent was asked. */
function unlessEnded(value) {
  try {
    return value();
  } catch (error) {
    if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
    return 0;
  }
}
