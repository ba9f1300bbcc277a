import { runCommand } from '../flapping/arguments.js';
import { Bugle } from './bugle.js';
import { fill } from './history.js';
import { medians } from './medians.js';
import { options } from './options.js';
import { broken } from './promises.js';
import { Reader } from './reads.js';
import { Load } from './sends.js';
import { tables } from './table.js';

const PARTS = { reads: Reader, sends: Load };

/** Runs what was asked for; the exit code: 1 if a promise is broken, 64 for a usage that cannot be. */
async function main(argv) {
  const asked = options(argv);
  if (!asked) return 0;
  const figures = await measured(asked);
  const faults = broken(figures);
  process.stdout.write(tables(figures));
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  return faults.length > 0 ? 1 : 0;
}

/** The medians of each part's rounds, by its name. The parts are measured in turn. */
async function measured(asked) {
  const bugle = await Bugle.start();
  const parts = [];
  try {
    fill(bugle.database);
    for (const name of asked.parts) parts.push(await PARTS[name].open(bugle));
    const rounds = new Map(parts.map((part) => [part, []]));
    for (let round = 1; round <= asked.rounds; round += 1) {
      for (const part of parts) {
        process.stderr.write(`${part.title}: round ${round} of ${asked.rounds}\n`);
        rounds.get(part).push(await part.measure(asked));
      }
    }
    return Object.fromEntries(parts.map((part) => [part.title, medians(rounds.get(part))]));
  } finally {
    await bugle.stop();
  }
}

await runCommand(main);
