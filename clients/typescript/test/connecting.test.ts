import { expect, onTestFinished, test, vi } from 'vitest';

import { Backoff } from '../src/backoff.js';
import { Arrivals } from './harness/deadline.js';
import { Device, WEBSOCKET } from './harness/device.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

test('a handler that is added right after connecting is given the first message', async () => {
  const server = await Server.start();
  const welcomes = new Arrivals<{ userId: string }>('the welcome');
  const { client } = new Device({ url: server.url, token: server.token('1') });
  client.on('connected', welcomes.push);
  expect(await welcomes.next()).toMatchObject({ userId: '1' });
});

test('the token function is asked for every attempt, and each token is used', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const asked = new Arrivals<string>('a question for a token');
  const token = async () => {
    const fresh = server.token('1');
    asked.push(fresh);
    return fresh;
  };
  const device = await Device.connected({ url: network.url, token });
  const first = await asked.next();
  await network.cut();
  const { error } = await device.disconnected();
  expect(error?.code).toBe('transport');
  // One that fails while the network is away, and the ones until it is back.
  const second = await asked.next();
  expect(second).not.toBe(first);
  await network.restore();
  await device.connected();
  expect(device.client.error).toBeUndefined();
});

test('a token function that fails is asked again', async () => {
  const server = await Server.start();
  let asked = 0;
  const token = () => {
    asked += 1;
    return asked < 3 ? Promise.reject(new Error('login is away')) : server.token('1');
  };
  const device = new Device({ url: server.url, token });
  const { error } = await device.states.next();
  expect(error).toMatchObject({ code: 'token', cause: { message: 'login is away' } });
  await device.connected();
  expect(asked).toBe(3);
});

test('nothing is opened before the token is there, so a slow token function uses up no time that Bugle gives to connect', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  let answer!: (token: string) => void;
  const device = new Device({ url: network.url, token: () => new Promise<string>((resolve) => (answer = resolve)) });
  // Meanwhile another one connects from beginning to end.
  await Device.connected({ url: server.url, token: server.token('2') });
  expect(network.passed).toBe(0);
  answer(server.token('1'));
  await device.connected();
  expect(network.passed).toBeGreaterThan(0);
});

test('comes back to a server that was started again', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const device = await Device.connected({ url: network.url, token: server.token('1') });
  await server.kill();
  await device.disconnected();
  const successor = await Server.run(server.configuration);
  await network.cut();
  await network.restore(successor.port);
  await device.connected();
  expect(await successor.backend.connectionsOf('1')).toBe(1);
});

test('a refused text stops the client, which says so', async () => {
  const server = await Server.start();
  const device = new Device({ url: server.url, token: 'no token' });
  const stopped = await device.states.find(({ isStopped }) => isStopped);
  expect(stopped).toMatchObject({ isConnected: false, error: { code: 'token_refused' } });
  expect(await device.errors.next()).toBe(stopped.error);
});

test('after a refusal the token function is asked once more, and its other token is used', async () => {
  const server = await Server.start();
  const tokens = ['stale', server.token('1')];
  const device = new Device({ url: server.url, token: () => tokens.shift() ?? expect.unreachable() });
  const refused = await device.states.next();
  expect(refused.error).toMatchObject({ code: 'token_refused', message: 'Invalid or expired token' });
  await device.connected();
  expect(tokens).toEqual([]);
});

test('a token function without another token is asked no more after a refusal', async () => {
  const server = await Server.start();
  let asked = 0;
  const device = new Device({ url: server.url, token: () => `stale ${Math.min((asked += 1), 2)}` });
  await device.states.find(({ isStopped }) => isStopped);
  expect(asked).toBe(3);
});

test('a client that stopped connects with a token that it is given', async () => {
  const server = await Server.start();
  const device = new Device({ url: server.url, token: 'stale' });
  await device.states.find(({ isStopped }) => isStopped);
  await device.client.updateToken(server.token('1'));
  await device.connected();
});

test('after DisconnectUser the client stays away with the reason, until it is told to come back', async () => {
  const server = await Server.start();
  const device = await Device.connected({ url: server.url, token: server.token('1') });
  expect(await server.backend.disconnectUser('1', 'logged out')).toBe(1);
  const stopped = await device.disconnected();
  expect(stopped).toMatchObject({ isStopped: true, error: { code: 'disconnected', message: 'logged out' } });
  expect(await server.backend.connectionsOf('1')).toBe(0);
  device.client.reconnect();
  await device.connected();
  expect(device.client.isStopped).toBe(false);
});

test('a token that expires closes the connection, and the client is back with a fresh one', async () => {
  const server = await Server.start({ 'auth.expiring_notice': '0s', 'auth.jwt.leeway': '0s' });
  const lifetimes = [1, 3_600];
  const device = await Device.connected({ url: server.url, token: () => server.token('1', lifetimes.shift()) });
  const lost = await device.disconnected();
  expect(lost).toMatchObject({ isStopped: false, error: { code: 'expired' } });
  await device.connected();
});

test('a device that is cut off again and again comes back with the shortest delay each time, as it had caught up', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const resumed = new Arrivals<unknown>('bugle:resumed');
  const waited = delays();
  const options = { onResumed: resumed.push, restAfter: false as const, socketOptions: WEBSOCKET };
  const device = await Device.connected({ url: network.url, token: server.token('1'), ...options });
  for (let losses = 0; losses < 4; losses += 1) {
    await resumed.next();
    network.drop();
    await device.disconnected();
    await device.connected();
  }
  expect(waited()).toHaveLength(4);
  expect(Math.max(...waited())).toBeLessThanOrEqual(20);
});

test('a device that Bugle itself sends away as soon as it has caught up waits longer each time', async () => {
  const server = await Server.start({ 'auth.expiring_notice': '0s', 'auth.jwt.leeway': '0s' });
  const lifetimes = [1, 1, 3_600];
  const resumed = new Arrivals<unknown>('bugle:resumed');
  const waited = delays();
  const token = () => server.token('1', lifetimes.shift());
  const device = await Device.connected({ url: server.url, token, onResumed: resumed.push, restAfter: false });
  for (const code of ['expired', 'expired']) {
    await resumed.next();
    expect(await device.disconnected()).toMatchObject({ error: { code } });
    await device.connected();
  }
  // At least half of twice the shortest.
  expect(waited()[1]).toBeGreaterThanOrEqual(20);
});

test('a closed client leaves nothing connected, also when it was closed while it connected', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const opening = new Device({ url: network.url, token: server.token('1') });
  opening.client.close();
  const device = await Device.connected({ url: server.url, token: server.token('2') });
  device.client.close();
  expect(device.client.isConnected).toBe(false);
  await expect.poll(() => server.backend.connectionsOf('2')).toBe(0);
  expect(network.passed).toBe(0);
});

test('handlers outlive a close and an open', async () => {
  const server = await Server.start();
  const device = await Device.connected({ url: server.url, token: server.token('1') });
  device.client.close();
  device.client.open();
  await device.connected();
  await server.backend.emit('1', 'note', 'again');
  expect(await device.messages.next()).toMatchObject({ event: 'note', payload: 'again' });
});

/** What every backoff has said from now until the end of the test. */
function delays(): () => number[] {
  const next = vi.spyOn(Backoff.prototype, 'next');
  onTestFinished(() => next.mockRestore());
  return () => next.mock.results.map(({ value }) => value as number);
}
