import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { runCommand } from '../flapping/arguments.js';
import { chart } from './chart.js';
import { CONTENDERS } from './contenders.js';
import { Failure } from './failure.js';
import { rowsOf } from './figures.js';
import { planned } from './loads.js';
import { machine } from './machine.js';
import { options } from './options.js';
import { captionOf, replaced, section } from './readme.js';
import { rounds } from './rounds.js';
import { table } from './table.js';
import { quantity } from './texts.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const README = here('../../../README.md');
const PICTURE = 'tests/bench/peers/figures.svg';

/** Runs what was asked for; the exit code: 1 if a contender failed, or a target was missed and that was to be checked. */
async function main(argv) {
  const asked = options(argv);
  if (!asked) return 0;
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
  const results = {};
  const rows = [];
  try {
    for (const load of planned(asked)) {
      results[load.name] = await rounds(load, { ...asked, tell });
      rows.push(...rowsOf(load, results[load.name]));
    }
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
  await show(asked, results, rows);
  const missed = rows.filter(({ isMet }) => isMet === false);
  for (const { title, whose, figure, target } of missed) {
    process.stderr.write(`missed: ${[title, whose, figure].filter(Boolean).join(', ')}: ${target}\n`);
  }
  return asked.check && missed.length > 0 ? 1 : 0;
}

async function show(asked, results, rows) {
  const measured = await machine();
  const text = table(rows);
  const caption = captionOf(measured, asked.rounds, asked.only.includes('memory'));
  process.stdout.write(asked.json ? `${JSON.stringify({ measured, options: asked, rows, results }, null, 2)}\n` : `${text}\n${caption}\n`);
  if (!asked.write) return;
  writeFileSync(here('figures.svg'), chart(rows, measured));
  writeFileSync(README, replaced(readFileSync(README, 'utf8'), section({ table: text, picture: PICTURE, caption })));
}

/** Says on standard error what a round has measured. */
function tell({ name, figures: [figure] }, contender, round, result) {
  const when = round === 0 ? 'before' : `round ${round}`;
  process.stderr.write(`${name}, ${when}, ${CONTENDERS[contender].title}: ${quantity(figure.of(result) ?? undefined, figure.unit)}\n`);
}

await runCommand(main);
