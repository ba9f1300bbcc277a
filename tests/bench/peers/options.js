import { chosen, count, FLAG, parsed, text, UsageError } from '../flapping/arguments.js';
import { LOADS } from './loads.js';

const NAMES = Object.keys(LOADS);

const HELP = `The same loads, by bugle bench, for Bugle and for servers with Socket.IO and gRPC as a team would write them in Node and in Python.
The load "room-one" also compares nginx with nchan. The load "memory" uses its own client and has its own table, in which Node's ws and nginx
with nchan are compared too; it takes seven minutes, and has one round. The contenders take turns; the tables show the medians of the rounds.

  --rounds NUMBER   how often each is measured, after one round that is not (5)
  --only LOADS      of ${NAMES.join(',')}: these alone
  --quick           a tenth of each load, in one round without one before it: shows that all works; the servers are too cold for targets
  --python-memory   the load "memory" for Python as well, which is slow
  --json            all results as JSON, instead of the table
  --check           exit code 1 when a target is missed
  --write           also writes the table into README.md and the picture beside this program; wants a whole run
`;

const KNOWN = {
  rounds: text(undefined),
  only: text(NAMES.join(',')),
  quick: FLAG,
  'python-memory': FLAG,
  json: FLAG,
  check: FLAG,
  write: FLAG,
  help: FLAG,
};

/** What is to be run, by the arguments of the command. Undefined if help was all they asked for. */
export function options(argv) {
  const { help, rounds, only, 'python-memory': pythonMemory, ...flags } = parsed(argv, KNOWN);
  if (help) {
    process.stdout.write(HELP);
    return undefined;
  }
  const wanted = chosen(only, NAMES);
  if (flags.write && (flags.quick || wanted.length < NAMES.length)) {
    throw new UsageError('--write keeps the figures of a whole run: not those of --quick or --only');
  }
  if (flags.check && flags.quick) throw new UsageError('--check is of warm servers: not with --quick');
  return { ...flags, pythonMemory, only: wanted, rounds: count('rounds', rounds ?? (flags.quick ? '1' : '5'), 1) };
}
