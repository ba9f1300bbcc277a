import { nameOf, product } from '../../clients/harness/pairwise.js';
import { SCENARIOS } from '../../clients/transports/scenarios.js';
import { startWorld } from '../../clients/transports/world.js';
import { chosen, count, FLAG, parsed, runCommand, text } from '../flapping/arguments.js';

const NAMES = Object.keys(SCENARIOS);
const HELP = `What must hold on every transport, as tests/clients/transports has it, in every combination of client, transport, distance and fault.

  --only NAMES       of ${NAMES.join(',')}: these alone
  --at-a-time COUNT  rows that run at a time (8)
`;
const KNOWN = { only: text(NAMES.join(',')), 'at-a-time': text('8'), help: FLAG };

/** What is to be undone after a row or a scenario. */
class Context {
  #steps = [];

  after(step) {
    this.#steps.push(step);
  }

  async end() {
    for (const step of this.#steps.reverse()) await step();
  }
}

/** Runs a row; what is wrong, or undefined. */
async function outcome(scenario, world, row) {
  const context = new Context();
  try {
    await scenario.run(context, world, row);
    return undefined;
  } catch (error) {
    return error.message;
  } finally {
    await context.end();
  }
}

/** Runs all rows of a scenario; the names of those that failed, each with its reason. */
async function failures(scenario, atATime) {
  const context = new Context();
  const world = await startWorld(context, scenario);
  const rows = product(scenario.factors, scenario.isPossible);
  const left = rows.values();
  const failed = [];
  const work = async () => {
    for (const row of left) {
      const reason = await outcome(scenario, world, row);
      if (reason) failed.push(`${nameOf(row)}: ${reason}`);
    }
  };
  await Promise.all(Array.from({ length: atATime }, work));
  await context.end();
  return { failed, all: rows.length };
}

/** Runs what was asked for; the exit code: 1 if anything did not hold. */
async function main(argv) {
  const { help, only, 'at-a-time': atATime } = parsed(argv, KNOWN);
  if (help) {
    process.stdout.write(HELP);
    return 0;
  }
  let isGood = true;
  for (const name of chosen(only, NAMES)) {
    const { failed, all } = await failures(SCENARIOS[name], count('at-a-time', atATime, 1));
    process.stdout.write(`${name}: ${all - failed.length} of ${all} hold: ${SCENARIOS[name].title}\n`);
    for (const line of failed) process.stdout.write(`  ${line}\n`);
    isGood &&= failed.length === 0;
  }
  return isGood ? 0 : 1;
}

await runCommand(main);
