import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Configuration } from './harness/configuration.js';
import { within } from './harness/deadline.js';
import { Device, KINDS } from './harness/device.js';
import { freePorts } from './harness/free_ports.js';
import { StreamedEmits, UnaryEmits } from './harness/load.js';
import { Server } from './harness/server.js';

const UNAVAILABLE = 14;
const DEADLINE = 30_000;

async function configurationWithPorts() {
  const [clients, grpc, admin] = (await freePorts(3)).map((port) => `127.0.0.1:${port}`);
  return new Configuration({
    'clients.listen': clients,
    'grpc.listen': grpc,
    'admin.listen': admin,
    'drain.deadline': `${DEADLINE / 1_000}s`,
  });
}

async function isSentAway(device) {
  const [{ code, retry }] = await device.heard('bugle:disconnect').next();
  assert.deepEqual([code, retry], ['draining', true], nameOf(device));
  assert.match(await device.disconnects.next(), /^transport (close|error)$/, nameOf(device));
}

/** How many numbers and texts each device has heard. The numbers are in order, and none is missing. */
function countHeard(devices) {
  const heard = { numbers: 0, texts: 0 };
  for (const device of devices) {
    const payloads = device.heard('note').drain().flat();
    const numbers = payloads.filter((payload) => typeof payload === 'number');
    assert.deepEqual(numbers, numbers.map((_, index) => index), nameOf(device));
    heard.numbers += numbers.length;
    heard.texts += payloads.length - numbers.length;
  }
  return heard;
}

function nameOf({ client, way }) {
  return `${client} by ${way}`;
}

test('a server that stops under load sends its devices away, and they come back to the next one', async (t) => {
  const configuration = await configurationWithPorts();
  t.after(() => configuration.remove());
  const server = await Server.run(configuration);
  t.after(() => server.kill());
  const token = server.token('42');
  const devices = await Promise.all(KINDS.map((kind) => Device.connect(t, server.url, { ...kind, token })));
  const streamed = new StreamedEmits(server.backend, '42', 'note');
  const unary = new UnaryEmits(server.backend, '42', 'note');
  await Promise.all([within(streamed.flowing, 'the stream'), within(unary.flowing, 'the calls')]);

  const signalled = Date.now();
  server.terminate();
  await Promise.all(devices.map(isSentAway));
  assert.equal((await within(streamed.ended, 'the end of the stream')).code, UNAVAILABLE);
  for (const { code } of await within(unary.ended, 'the end of the calls')) assert.equal(code, UNAVAILABLE);
  assert.equal(await server.exited(DEADLINE), 0);
  assert.ok(Date.now() - signalled < DEADLINE);

  const heard = countHeard(devices);
  assert.equal(heard.texts, unary.enqueued);
  // Node's gRPC library throws away results that it has not handed over when the stream ends with an error.
  assert.ok(heard.numbers >= streamed.enqueued, `${heard.numbers} heard, ${streamed.enqueued} answered`);

  const next = await Server.run(configuration);
  t.after(() => next.kill());
  await Promise.all(devices.map((device) => device.connects.next()));
  assert.equal((await next.backend.emit('42', 'note', { json: '"back"' })).enqueued, devices.length);
  for (const device of devices) assert.deepEqual(await device.heard('note').next(), ['back']);
});

test('while it stops, a server is not ready and takes no device', async (t) => {
  const server = await Server.start(t, { 'drain.pace': 1 });
  const token = server.token('42');
  const ready = async () => (await fetch(`${server.adminUrl}/readyz`)).status;
  const devices = await Promise.all([1, 2, 3].map(() => Device.connect(t, server.url, { token, reconnection: false })));
  assert.equal(await ready(), 200);

  server.terminate();
  await server.log.find((line) => line.message === 'stopping');
  assert.equal(await ready(), 503);
  assert.equal((await fetch(`${server.adminUrl}/livez`)).status, 200);
  const late = await fetch(`${server.url}/socket.io/?EIO=4&transport=polling`).catch(() => undefined);
  assert.ok(late === undefined || late.status === 503);
  await Promise.all(devices.map((device) => device.heard('bugle:disconnect').next()));
  assert.equal(await server.exited(), 0);
});
