import { backlog } from './backlog.js';
import { badProxies } from './bad_proxies.js';
import { answerCut, closesNormally, joinsAgain, pollingGone } from './gone.js';
import { tunnel } from './tunnel.js';
import { fullPoll, fullSmallPoll } from './upgrade_after_full_poll.js';

/**
 * What has to hold on every transport. Each has a title, factors whose values make its rows, `run(context, world, row)`, which fails where
 * it does not hold, and says what it needs (`keys` of the configuration, `isCompared` with Node's server, `isBehindNginx`).
 * `tests/run` tries pairs of values, `tests/bench/transports/run` all rows.
 */
export const SCENARIOS = {
  'bad-proxies': badProxies,
  backlog,
  tunnel,
  'polling-gone': pollingGone,
  'answer-cut': answerCut,
  'closes-normally': closesNormally,
  'joins-again': joinsAgain,
  'full-poll': fullPoll,
  'full-small-poll': fullSmallPoll,
};
