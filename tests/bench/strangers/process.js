import { readFileSync, readdirSync } from 'node:fs';

/** The resident memory of a process, in MiB. */
export function readMemory(pid) {
  const [, kibibytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(kibibytes) / 1_024;
}

/** How many file descriptors a process has open. */
export function readDescriptors(pid) {
  return readdirSync(`/proc/${pid}/fd`).length;
}
