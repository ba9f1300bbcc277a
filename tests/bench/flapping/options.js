import { chosen, count, FLAG, parsed, text, UsageError } from './arguments.js';
import { CONTENDERS } from './contenders.js';

const HELP = `Devices lose their connection by a TCP reset again and again while messages go out, some of them to each user and some to a
room: what arrives, how often, in which order and how late, with Bugle and with Node's Socket.IO.

  --devices COUNT      devices, each of a user of its own (500)
  --messages COUNT     messages to each user, and as many to the room (120)
  --interval DURATION  from one message to the next (1s)
  --period DURATION    from one loss of a device's connection to the next (15s)
  --down DURATION      how long a device is refused then (2s)
  --seed NUMBER        which devices are cut off when (1)
  --shipped            devices come back as their clients are shipped, each with its own delays; without, all in the same way
  --store NAME         of sqlite,postgres: where Bugle stores (sqlite). PostgreSQL is one of the bench's own
  --only NAMES         of ${Object.keys(CONTENDERS).join(',')}: these alone
  --json               the figures as JSON
`;

const UNITS = { ms: 1, s: 1_000, m: 60_000 };

/** What Bugle can store in. */
const STORES = ['sqlite', 'postgres'];

const KNOWN = {
  store: text('sqlite'),
  devices: text('500'),
  messages: text('120'),
  interval: text('1s'),
  period: text('15s'),
  down: text('2s'),
  seed: text('1'),
  only: text(Object.keys(CONTENDERS).join(',')),
  json: FLAG,
  shipped: FLAG,
  help: FLAG,
};

/** What is to be run, by the arguments of the command; durations in milliseconds. Undefined if help was all they asked for. */
export function options(argv) {
  const { help, json, only, shipped, ...texts } = parsed(argv, KNOWN);
  if (help) {
    process.stdout.write(HELP);
    return undefined;
  }
  const values = {
    json,
    shipped,
    store: stored(texts.store),
    only: chosen(only, Object.keys(CONTENDERS)),
    devices: count('devices', texts.devices, 1),
    messages: count('messages', texts.messages, 1),
    seed: count('seed', texts.seed, 0),
    interval: duration('interval', texts.interval),
    period: duration('period', texts.period),
    down: duration('down', texts.down),
  };
  if (values.down * 2 > values.period) throw new UsageError('--down is at most half of --period: devices need time to come back');
  return values;
}

function stored(store) {
  if (!STORES.includes(store)) throw new UsageError(`--store names ${store}: known are ${STORES.join(', ')}`);
  return store;
}

function duration(name, text) {
  const [, number, unit] = /^(\d+)(ms|s|m)$/.exec(text) ?? [];
  if (!(number > 0)) throw new UsageError(`--${name} is a duration such as 200ms, 15s or 1m`);
  return number * UNITS[unit];
}
