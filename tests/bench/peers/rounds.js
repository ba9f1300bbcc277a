import { bench } from './bench.js';
import { Contender } from './contenders.js';

/** Runs a load against its contenders in turn, round after round: for each the results of its rounds. */
export async function rounds(load, { rounds: count, quick, tell }) {
  const results = Object.fromEntries(load.contenders.map((name) => [name, []]));
  const running = new Map();
  try {
    if (!load.isFresh) for (const name of load.contenders) running.set(name, await start(load, name));
    // What a process does for the first time is not what it does all day; of memory this is what is wanted.
    const first = quick || load.isFresh ? 1 : 0;
    const last = Math.min(count, load.mostRounds ?? count);
    for (let round = first; round <= last; round += 1) {
      for (const name of load.contenders) {
        const result = await once(load, name, running.get(name));
        tell(load, name, round, result);
        if (round > 0) results[name].push(result);
      }
    }
  } finally {
    for (const contender of running.values()) await contender.stop();
  }
  return results;
}

const start = (load, name) => Contender.start(name, load.keys?.[name]);

/** Against a contender that runs, or else one that is started for this. */
async function once(load, name, running) {
  const contender = running ?? (await start(load, name));
  try {
    const measure = load.measures?.[name] ?? bench;
    return await measure(contender, load, load.emits?.[name]);
  } finally {
    if (!running) await contender.stop();
  }
}
