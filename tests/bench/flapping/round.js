import { now } from './clock.js';
import { CONTENDERS } from './contenders.js';
import { Emits } from './emits.js';
import { figures } from './figures.js';
import { Fleet } from './fleet.js';
import { userOf } from './loads.js';
import { grace, phases, reconnection } from './schedule.js';

/** Between the last device's connection and the first message: what connecting left to do is done by then. */
const REST = 1_000;

/** Runs one contender through the whole load: its figures. */
export async function round(name, options) {
  const { start, kind } = CONTENDERS[name];
  const server = await start(options);
  const fleet = new Fleet(options.devices);
  try {
    const tokens = Array.from({ length: options.devices }, (_, device) => server.token(userOf(device)));
    await fleet.connect({ kind, url: server.url, tokens, reconnection: reconnection(options) });
    const emits = await flapWhileEmitting(server, fleet, options);
    return figures(name, options, emits, await fleet.report());
  } finally {
    await fleet.end();
    await server.stop();
  }
}

async function flapWhileEmitting(server, fleet, options) {
  const { devices, messages, interval, period, down } = options;
  const start = now() + REST;
  const end = start + messages * interval;
  const emits = new Emits(server.backend, devices, server.emitOptions);
  fleet.flap({ start, end, phases: phases(options), period, down, messages });
  await emits.send({ start, messages, interval });
  await fleet.complete(grace(options));
  await emits.end();
  return emits;
}
