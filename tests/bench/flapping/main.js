import { runCommand } from './arguments.js';
import { CONTENDERS } from './contenders.js';
import { options } from './options.js';
import { broken } from './promises.js';
import { round } from './round.js';
import { table } from './table.js';

/** Runs what was asked for; the exit code: 1 if Bugle broke a promise, 64 for a usage that cannot be. */
async function main(argv) {
  const asked = options(argv);
  if (!asked) return 0;
  const all = [];
  for (const name of asked.only) {
    process.stderr.write(`${CONTENDERS[name].title}: ${asked.devices} devices, ${asked.messages} messages\n`);
    all.push(await round(name, asked));
  }
  const faults = broken(all);
  process.stdout.write(asked.json ? `${JSON.stringify({ options: asked, results: all, broken: faults }, null, 2)}\n` : table(all));
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  return faults.length > 0 ? 1 : 0;
}

await runCommand(main);
