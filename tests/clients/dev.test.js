import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { delimiter } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { BUGLE, cleanEnvironment, run } from './harness/binary.js';
import { Arrivals } from './harness/deadline.js';
import { Device } from './harness/device.js';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const GRPCURL = fileURLToPath(new URL('harness/bin', import.meta.url));
const ANY_PORT = Object.fromEntries(['CLIENTS', 'GRPC', 'ADMIN'].map((name) => [`BUGLE_${name}__LISTEN`, '127.0.0.1:0']));

function start(t, command, args, options) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'], detached: true, ...options });
  // With what the shell has started.
  t.after(() => process.kill(-child.pid, 'SIGKILL'));
  const lines = new Arrivals(`a line of ${command}`);
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  return lines;
}

/** What `bugle serve --dev` prints: the parts that one would paste. */
async function banner(t) {
  const lines = start(t, BUGLE, ['serve', '--dev'], { env: cleanEnvironment(ANY_PORT) });
  const printed = [];
  while (!printed.at(-1)?.startsWith('grpcurl ')) printed.push(await lines.next());
  const text = printed.join('\n');
  return {
    devices: text.match(/devices +(http:\S+?)\/socket.io /)[1],
    token: text.match(/^eyJ\S+$/m)[0],
    device: text.match(/^node -e '[^']+'$/m)[0],
    backend: printed.at(-1),
  };
}

function emit({ backend }) {
  return run('bash', ['-c', backend], { env: { PATH: `${GRPCURL}${delimiter}${process.env.PATH}` } });
}

test('what --dev prints works when it is pasted', async (t) => {
  const printed = await banner(t);
  const device = start(t, 'bash', ['-c', printed.device], { cwd: HERE });
  assert.match(await device.next(), /^connected \{/);
  const { code, stdout, stderr } = await emit(printed);
  assert.equal(code, 0, stderr);
  const { receipt } = JSON.parse(stdout);
  assert.deepEqual([receipt.matched, receipt.enqueued], ['1', '1']);
  await device.find((line) => line === "hello { text: 'Hello from Bugle' }");
});

test('with --dev pages of any loopback origin may connect, and no other', async (t) => {
  const printed = await banner(t);
  const from = (origin) => ({ token: printed.token, extraHeaders: { origin }, reconnection: false });
  await Device.connect(t, printed.devices, from('http://localhost:5173'));
  await Device.open(t, printed.devices, from('https://evil.example')).failures.next();
});
