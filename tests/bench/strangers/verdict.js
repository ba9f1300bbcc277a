import { MEMORY_SLACK } from './measure.js';

const MEMORY_ALLOWED = 64;
const STOP_WITHIN = 3;

/** The promises that an attack broke, as texts. `floor`: KiB for an idle connection. */
export function broken(result, floor) {
  const { before, peak, after, calm, noticed } = result;
  const connections = Math.max(0, peak.descriptors - before.descriptors);
  const rise = peak.memory - before.memory - (connections * floor) / 1_024;
  const faults = [];
  if (rise > MEMORY_ALLOWED) faults.push(`memory +${rise.toFixed(0)} MiB beside the floor of ${connections} connections`);
  if (after.memorySeconds === undefined) {
    faults.push(`memory still +${(after.memory - before.memory).toFixed(0)} MiB after 30 s (allowed: ${MEMORY_SLACK})`);
  }
  if (!(after.descriptorSeconds <= 10)) faults.push(`${after.descriptors - before.descriptors} more descriptors after 10 s`);
  if (noticed.livezFailures.length > 0) faults.push(`${noticed.livezFailures.length} of ${noticed.probes} /livez failed`);
  if (noticed.grpcFailures.length > 0) faults.push(`${noticed.grpcFailures.length} of ${noticed.emits} calls failed`);
  if (noticed.cuts > 0) faults.push(`${noticed.cuts} honest devices were cut`);
  if (noticed.p99 > 2 * calm.p99) faults.push(`p99 ${calm.p99.toFixed(1)} -> ${noticed.p99.toFixed(1)} ms`);
  return faults;
}

export function stopFaults({ seconds }) {
  return seconds < STOP_WITHIN ? [] : [`SIGTERM took ${seconds.toFixed(1)} s`];
}
