// Connects devices, emits stored messages to their users and messages to their groups, which have a history, runs a command meanwhile (a
// rolling restart), and then asks every device whether it has all of them. The exit code is 1 if not, or if a device was away for too long.
//
//   node main.mjs --url http://127.0.2.10:8080 --grpc 127.0.2.10:50051 --devices 3000 -- ../run rolling-restart
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { Backend } from './backend.mjs';
import { Verdict } from './verdict.mjs';

const KINDS = { polling: ['polling'], websocket: ['websocket'], upgrading: ['polling', 'websocket'] };
/** Devices of one group. */
const GROUP_SIZE = 30;
/** How long the load goes on before and after the command, in milliseconds. */
const MARGIN = 3_000;
/** How long devices may take to connect, and after the last emit to come back and catch up, in milliseconds. */
const CONNECT_WITHIN = 120_000;
const CATCH_UP_WITHIN = 20_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: 'string' },
    grpc: { type: 'string' },
    devices: { type: 'string', default: '3000' },
    /** Stored emits a second, and as many to groups. */
    rate: { type: 'string', default: '50' },
  },
});
const rate = Number(values.rate);
const perKind = Math.max(1, Math.round(Number(values.devices) / 3));
const count = 3 * perKind;
const groups = Math.ceil(count / GROUP_SIZE);

/** A process with the devices of one kind. */
class Fleet {
  constructor(kind, first) {
    const file = fileURLToPath(new URL('./devices.mjs', import.meta.url));
    this.kind = kind;
    this.child = fork(file, [JSON.stringify({ url: values.url, transports: KINDS[kind], first, count: perKind, groups })]);
    this.child.once('exit', (code) => {
      if (this.ended) return;
      console.error(`the process with the ${kind} devices ended with ${code}`);
      process.exit(1);
    });
  }

  async ask(question) {
    const answered = once(this.child, 'message');
    this.child.send(question);
    return (await answered)[0];
  }

  end() {
    this.ended = true;
    this.child.kill();
  }
}

const fleets = Object.keys(KINDS).map((kind, number) => new Fleet(kind, number * perKind));
const askAll = (question) => Promise.all(fleets.map((fleet) => fleet.ask(question)));

/** Asks until no device is without what the question is for; how many are. */
async function untilNone(question, milliseconds) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const left = (await askAll(question)).reduce((sum, number) => sum + number, 0);
    if (left === 0 || Date.now() > end) return left;
    await delay(200);
  }
}

async function run([command, ...args]) {
  const child = spawn(command, args, { stdio: 'inherit' });
  process.once('SIGTERM', () => {
    child.kill();
    process.exit(143);
  });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${command} ended with ${code}`);
}

async function main() {
  const begun = Date.now();
  const without = await untilNone({ ask: 'unconnected' }, CONNECT_WITHIN);
  if (without > 0) throw new Error(`${without} devices did not connect`);
  const seconds = ((Date.now() - begun) / 1_000).toFixed(1);
  console.log(`${count} devices (${perKind} each: ${Object.keys(KINDS).join(', ')}) connected within ${seconds} s`);

  const backend = new Backend(values.grpc, { users: count, groups, rate });
  await delay(MARGIN);
  if (positionals.length > 0) await run(positionals);
  await delay(MARGIN);
  const emitted = await backend.stop();

  await askAll({ ask: 'expect', rooms: emitted.rooms });
  await untilNone({ ask: 'missing' }, CATCH_UP_WITHIN);
  return new Verdict(emitted, await askAll({ ask: 'results' }), Object.keys(KINDS));
}

try {
  const verdict = await main();
  console.log(verdict.text());
  process.exitCode = verdict.isGood ? 0 : 1;
} finally {
  for (const fleet of fleets) fleet.end();
}
