import { bugle } from '../../clients/harness/binary.js';
import { Failure } from './failure.js';

/** The slowest there is: 15,000 devices of the server in Python. */
const DEADLINE = 180_000;

/** Runs the load generator against a contender: what it measured. */
export async function bench(contender, load, emits) {
  const env = { BUGLE_API_KEY: contender.apiKey, BUGLE_BENCH_SECRET: contender.secret };
  const { code, stdout, stderr } = await bugle(['bench', ...bugleArguments(contender.urls, load, emits)], { env, timeout: DEADLINE });
  const figures = parsed(stdout);
  if (code === 0 && figures && contender.runs) return figures;
  const whose = `${contender.title}, ${load.name}`;
  throw new Failure(`${whose}: ${reason({ code, figures, contender })}\n${stderr}its log ends:\n${contender.lastWords}`);
}

export function bugleArguments({ devices, server, admin }, load, emits) {
  const options = {
    server,
    'devices-url': devices,
    admin,
    devices: load.devices,
    emits,
    concurrency: load.concurrency,
    rate: load.rate,
    settle: load.settle,
  };
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return [load.command, '--json', ...given.flatMap(([name, value]) => [`--${name}`, `${value}`])];
}

function reason({ code, figures, contender }) {
  if (!contender.runs) return 'the server has ended';
  if (figures?.missing > 0) return `${figures.missing} of ${figures.missing + figures.deliveries} deliveries are missing`;
  return code === null ? `bugle bench was not done within ${DEADLINE / 1_000} s` : `bugle bench ended with exit code ${code}`;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
