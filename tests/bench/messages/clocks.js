import { readFileSync } from 'node:fs';

import { now } from '../flapping/clock.js';
import { cpuMicros } from '../peers/process.js';

/** The kernel counts processor time in hundredths of a second (USER_HZ). */
const MICROS_PER_TICK = 10_000;
/** The fields of /proc/stat in which a core does no work: idle and iowait. */
const IDLE = [3, 4];
/** The last of them, steal. Those after it are part of user and nice. */
const LAST = 7;

/** The time in milliseconds, and processor time in microseconds: of the servers, of this process, and of the whole machine. */
export function clocks(buglePid, postmasterPid) {
  const { user, system } = process.cpuUsage();
  return {
    ms: now(),
    bugle: cpuMicros(buglePid),
    postgres: cpuMicros(postmasterPid),
    load: user + system,
    all: busyMicros(readFileSync('/proc/stat', 'utf8')),
  };
}

/** The time in which any core was busy, with what the hypervisor took. */
export function busyMicros(stat) {
  const fields = stat.slice(0, stat.indexOf('\n')).split(/ +/).slice(1);
  const busy = fields.slice(0, LAST + 1).filter((_, index) => !IDLE.includes(index));
  return busy.reduce((sum, field) => sum + Number(field), 0) * MICROS_PER_TICK;
}
