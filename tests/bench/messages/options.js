import { chosen, FLAG, parsed, text } from '../flapping/arguments.js';

const PARTS = ['reads', 'sends'];
const FULL = { rounds: 3, requests: 1_000, seconds: 10 };
const SHORT = { rounds: 1, requests: 100, seconds: 1 };

const HELP = `Direct messages over PostgreSQL: the latency of each list of a user with 100,000 messages in 1,000 conversations, and sends a second.

  --short       1 round, 100 requests of each list and sends for 1 s; otherwise 3 rounds, 1,000 requests and 10 s
  --only NAMES  of ${PARTS.join(',')}: these alone
`;

/** What is to be run, by the arguments of the command. Undefined if help was all they asked for. */
export function options(argv) {
  const { help, short, only } = parsed(argv, { short: FLAG, only: text(PARTS.join(',')), help: FLAG });
  if (help) {
    process.stdout.write(HELP);
    return undefined;
  }
  return { ...(short ? SHORT : FULL), parts: chosen(only, PARTS) };
}
