import { after, describe, test } from 'node:test';

import { nameOf, pairwise } from './harness/pairwise.js';
import { SCENARIOS } from './transports/scenarios.js';
import { startWorld } from './transports/world.js';

/** How many devices are tried at a time, so that two cores can keep up. */
const AT_A_TIME = 8;

for (const scenario of Object.values(SCENARIOS)) {
  const world = await startWorld({ after }, scenario);
  describe(scenario.title, { concurrency: scenario.isCompared ? true : AT_A_TIME }, () => {
    for (const row of pairwise(scenario.factors, scenario.isPossible)) {
      test(nameOf(row), (t) => scenario.run(t, world, row));
    }
  });
}
