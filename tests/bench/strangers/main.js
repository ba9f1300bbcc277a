import { parseArgs } from 'node:util';

import { ATTACKS } from './attacks/index.js';
import { measure, measureFloor, measureStop } from './measure.js';
import { head, line } from './table.js';
import { runTunnels } from './tunnel.js';
import { broken, stopFaults } from './verdict.js';

const HELP = `tests/bench/strangers/run [--only NAME,…] [--via direct|nginx] [--token yes|no] [--once] [--verbose]

Attacks a server with default limits, one attack after the other, and prints a row of a table for each: PASS or FAIL. A row that
fails is repeated once, without --once. NAME is a part of an attack's name; also: stop, tunnel. Needs nginx (or NGINX).
The exit code is 1 if anything fails.
`;

/** Long enough to open everything, and shorter than the deadlines that would end it. */
const STOP_AFTER_ALL = 8_000;
const STOP_AFTER_SESSIONS = 30_000;

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    via: { type: 'string' },
    token: { type: 'string' },
    once: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

/** Each attack in each way, as far as it was asked for. */
function chosen() {
  const all = ATTACKS.flatMap(({ name, via, tokens }) =>
    via.flatMap((way) => tokens.map((hasToken) => ({ name, via: way, hasToken }))),
  );
  return all
    .filter(({ name }) => isWanted(name))
    .filter(({ via }) => !options.via || via === options.via)
    .filter(({ hasToken }) => !options.token || hasToken === (options.token === 'yes'));
}

/** Whether something besides the attacks was asked for: `--via` and `--token` choose attacks alone, unless it is named. */
function isWantedBesides(name) {
  return options.only ? isWanted(name) : !options.via && !options.token;
}

function isWanted(name) {
  return !options.only || options.only.split(/,(?! )/).some((part) => name.includes(part));
}

async function attack({ name, ...way }, floor) {
  const attempt = async () => {
    const result = await measure(name, way);
    const faults = broken(result, floor);
    console.log(line(result, faults));
    if (options.verbose) explain(result);
    return faults.length === 0;
  };
  return (await attempt()) || (!options.once && (await attempt()));
}

function explain({ note, took, alive, stayed, calm, noticed, warnings }) {
  const expected = noticed.emits * 100;
  console.error(`    ${note} (${took.toFixed(1)} s); ${alive} open and ${stayed.descriptors} descriptors at the end`);
  console.error(`    slowest call ${noticed.slowestCall.toFixed(0)} ms, /livez ${noticed.slowestProbe.toFixed(0)} ms`);
  console.error(`    arrivals ${noticed.arrivals} of ${expected} (before: ${calm.arrivals} of ${calm.emits * 100})`);
  for (const failure of new Set([...noticed.livezFailures, ...noticed.grpcFailures])) console.error(`    ${failure}`);
  for (const warning of warnings.slice(0, 5)) console.error(`    ${warning.slice(0, 300)}`);
}

/** Stops the server under all attacks, and with 10,000 sessions whose tokens were accepted. */
async function stop() {
  const all = await stopUnder('all attacks', chosenForStop(), STOP_AFTER_ALL);
  const sessions = { name: '10,000 sessions left', via: 'direct', hasToken: true };
  return (await stopUnder('10,000 sessions with a token', [sessions], STOP_AFTER_SESSIONS)) && all;
}

async function stopUnder(what, attacks, within) {
  const result = await measureStop(attacks, within);
  const faults = stopFaults(result);
  const { seconds, descriptors, memory } = result;
  const verdict = faults.length === 0 ? 'PASS' : 'FAIL';
  console.log(`SIGTERM, ${what}: ${seconds.toFixed(1)} s, ${descriptors} descriptors, ${memory.toFixed(0)} MiB ${verdict}`);
  return faults.length === 0;
}

/** Each attack in one way; the ways alternate. */
function chosenForStop() {
  return ATTACKS.map(({ name, via, tokens }, number) => ({
    name,
    via: via[number % via.length],
    hasToken: tokens[number % tokens.length],
  }));
}

async function main() {
  if (options.help) {
    console.log(HELP);
    return true;
  }
  let holds = true;
  const attacks = chosen();
  if (attacks.length > 0) {
    const floor = await measureFloor();
    console.log(`An idle connection that has made a request takes ${floor.toFixed(1)} KiB.\n\n${head()}`);
    for (const each of attacks) holds = (await attack(each, floor)) && holds;
    console.log('');
  }
  if (isWantedBesides('stop')) holds = (await stop()) && holds;
  if (isWantedBesides('tunnel')) holds = (await runTunnels()) && holds;
  return holds;
}

process.exitCode = (await main()) ? 0 : 1;
