import { MEMORY } from './memory.js';
import { nchanRoom } from './nchan_room.js';

const EVERYBODY = ['bugle', 'node', 'python'];

const perConnect = { name: 'server CPU per connect', unit: 'µs', of: ({ connect }) => connect.server_cpu_us_per_connect };
const connects = { name: 'connects a second', unit: '/s', isRate: true, of: ({ connect }) => connect.devices_per_second };
const perEmit = { name: 'server CPU per emit', unit: 'µs', of: ({ server }) => server.cpu_us_per_emit };
const emits = { name: 'emits a second', unit: '/s', isRate: true, of: (result) => result.emits_per_second };
const perDelivery = { name: 'server CPU per delivery', unit: 'µs', of: ({ server }) => server.cpu_us_per_delivery };
const deliveries = { name: 'deliveries a second', unit: '/s', isRate: true, of: (result) => result.deliveries_per_second };
const latency = { name: 'p99 from emit to device', unit: 'ms', of: ({ delivery_us: delivery }) => delivery.p99 / 1_000 };

/** How many times less than Node. */
const lessThanNode = (times) => ({ times });
const counted = (devices) => `${devices.toLocaleString('en-US')} devices`;
const drawn = (figure, target = {}) => ({ ...figure, ...target, isDrawn: true });

/** Bugle looks for stored messages of each device that connects, unless it has no store. The others have none. */
function connecting(load) {
  // It is the connecting that counts, not what it leaves behind.
  return { command: 'connect', devices: 5_000, settle: '1s', ...load, figures: [drawn(perConnect, lessThanNode(4.5)), connects] };
}

/** Unary calls to one user each. */
function callers(concurrency, figures) {
  const counts = { bugle: 20_000, node: 10_000, python: 3_000 };
  return { command: 'user', devices: 1_000, concurrency, emits: counts, title: () => `EmitToUser, ${concurrency} callers`, figures };
}

/** Unary calls to all devices, from so many callers that the server always has something to do. */
function fanOut(call, command, { target, ...numbers }) {
  const title = ({ devices }) => `${call}, ${counted(devices)}, saturated`;
  return { command, concurrency: 8, ...numbers, title, figures: [drawn(perDelivery, target), deliveries] };
}

/**
 * What is compared, in the order of the table. `emits` is for each contender as many as it takes a second or two for; `rate` is what all of
 * them can hold. `isFresh`: a process of its own for each round, as memory that was once used stays resident. `measures`: how a contender
 * is measured, if not by bugle bench. `isApart`: a table of its own.
 * `mostRounds`: no more, however many are asked for. `keys`: of the contenders' configurations.
 */
export const LOADS = {
  connect: connecting({ title: ({ devices }) => `connecting ${counted(devices)}` }),
  'connect-unstored': connecting({
    title: ({ devices }) => `connecting ${counted(devices)}, no store`,
    contenders: ['bugle', 'node'],
    keys: { bugle: { 'store.url': '' } },
  }),
  user: callers(8, [drawn(perEmit, lessThanNode(5)), emits]),
  'user-64': callers(64, [perEmit, emits]),
  stream: {
    command: 'stream',
    devices: 1_000,
    concurrency: 8,
    emits: { bugle: 100_000, node: 20_000, python: 4_000 },
    title: ({ concurrency }) => `EmitStream to users, ${concurrency} streams`,
    figures: [drawn(perEmit, lessThanNode(12)), emits],
  },
  'room-one': {
    command: 'room',
    devices: 1_000,
    concurrency: 1,
    contenders: ['bugle', 'node', 'nchan'],
    emits: { bugle: 400, node: 200, nchan: 400 },
    measures: { nchan: nchanRoom },
    title: ({ devices }) => `EmitToRoom, ${counted(devices)}, one at a time`,
    figures: [drawn(perDelivery, { noMoreThan: 'nchan' }), latency],
  },
  room: fanOut('EmitToRoom', 'room', { devices: 1_000, emits: { bugle: 300, node: 100, python: 20 }, target: lessThanNode(6) }),
  'room-5000': fanOut('EmitToRoom', 'room', { devices: 5_000, emits: { bugle: 60, node: 20, python: 5 }, target: lessThanNode(5) }),
  broadcast: fanOut('Broadcast', 'broadcast', { devices: 1_000, emits: { bugle: 300, node: 100, python: 20 } }),
  'user-paced': {
    command: 'user',
    devices: 1_000,
    rate: 200,
    emits: { bugle: 600, node: 600, python: 600 },
    title: ({ rate }) => `EmitToUser, ${rate} a second`,
    figures: [latency],
  },
  'room-paced': {
    command: 'room',
    devices: 1_000,
    rate: 5,
    emits: { bugle: 20, node: 20, python: 20 },
    title: ({ devices, rate }) => `EmitToRoom, ${counted(devices)}, ${rate} a second`,
    figures: [latency],
  },
  memory: MEMORY,
};

/** What a load is divided by, and how long memory may settle. */
const QUICK = { devices: 10, emits: 10, settleSeconds: 1 };

/** The loads that are to be run, each with its contenders. */
export function planned({ only, quick, pythonMemory }) {
  return only.map((name) => {
    const load = LOADS[name];
    const { contenders: named = EVERYBODY } = load;
    const contenders = named.filter((contender) => name !== 'memory' || contender !== 'python' || pythonMemory);
    return { ...load, name, contenders, ...(quick && fraction(load)) };
  });
}

/** The same load, in less time and without targets: for those the peers are still too cold. */
function fraction({ devices, from, settleSeconds, emits: wanted, figures }) {
  const fewer = wanted && Object.fromEntries(Object.entries(wanted).map(([contender, count]) => [contender, Math.ceil(count / QUICK.emits)]));
  return {
    devices: devices / QUICK.devices,
    from: from && from / QUICK.devices,
    settleSeconds: settleSeconds && QUICK.settleSeconds,
    emits: fewer,
    figures: figures.map((figure) => ({ ...figure, times: undefined, atMost: undefined, noMoreThan: undefined })),
  };
}
