import { expect, test } from 'vitest';

import { Arrivals } from './harness/deadline.js';
import { Device, WEBSOCKET } from './harness/device.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

test('a token function is asked when the token expires soon, and Bugle takes the fresh one', async () => {
  // Each token is soon to expire, so the notice that follows the refresh shows that it was taken.
  const server = await Server.start({ 'auth.expiring_notice': '1h', 'auth.jwt.leeway': '0s' });
  const asked = new Arrivals<number>('a question for a token');
  let count = 0;
  const token = () => {
    asked.push((count += 1));
    return server.token('1', 600 + count);
  };
  const device = await Device.connected({ url: server.url, token });
  expect(await asked.take(4)).toEqual([1, 2, 3, 4]);
  expect(device.states.drain()).toEqual([]);
  expect(device.client.isConnected).toBe(true);
});

test('a token function that fails before the token expires is asked again', async () => {
  const server = await Server.start({ 'auth.expiring_notice': '1h' });
  const asked = new Arrivals<number>('a question for a token');
  let count = 0;
  const token = async () => {
    asked.push((count += 1));
    if (count === 2) throw new Error('login is away');
    return server.token('1', count < 3 ? 600 : 7_200);
  };
  const device = await Device.connected({ url: server.url, token });
  expect(await device.errors.next()).toMatchObject({ code: 'token', cause: { message: 'login is away' } });
  expect(await asked.take(3)).toEqual([1, 2, 3]);
  expect(device.client.isConnected).toBe(true);
});

test('a token of another user is refused, and the connection and its token stay', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const device = await Device.connected({ url: network.url, token: server.token('1'), socketOptions: WEBSOCKET });
  await expect(device.client.updateToken(server.token('2'))).rejects.toMatchObject({ code: 'wrong_user' });
  await expect(device.client.updateToken('no token')).rejects.toMatchObject({ code: 'invalid_token' });
  expect(device.client.isConnected).toBe(true);
  network.drop();
  await device.disconnected();
  await device.connected();
  await server.backend.emit('1', 'note', 'still here');
  expect(await device.messages.next()).toMatchObject({ payload: 'still here' });
});

test('a token that was given by hand outlives the one before', async () => {
  const server = await Server.start({ 'auth.expiring_notice': '0s', 'auth.jwt.leeway': '0s' });
  const network = await Network.before(server.port);
  const first = server.token('1', 2);
  const device = await Device.connected({ url: network.url, token: first, socketOptions: WEBSOCKET });
  const other = await Device.connected({ url: server.url, token: first });
  await device.client.updateToken(server.token('1'));
  expect((await other.disconnected()).error?.code).toBe('expired');
  await expect(device.client.send('unheard of')).rejects.toMatchObject({ code: 'unknown_event' });
  expect(device.states.drain()).toEqual([]);
  network.drop();
  await device.disconnected();
  await device.connected();
});

test('a token that is given while the client waits for its next attempt ends the wait', async () => {
  const server = await Server.start();
  const asked = new Arrivals<void>('a question for a token');
  const token = () => {
    asked.push();
    return Promise.reject(new Error('login is away'));
  };
  const hour = 3_600_000;
  const device = new Device({ url: server.url, token, retryDelay: hour, retryDelayMax: hour });
  await device.states.next();
  await device.client.updateToken(server.token('1'));
  await device.connected();
  expect(await asked.take(1)).toHaveLength(1);
  expect(asked.drain()).toEqual([]);
});

test('a token that is given while an attempt is under way replaces the one of the attempt', async () => {
  const server = await Server.start({ 'auth.expiring_notice': '1h' });
  const device = new Device({ url: server.url, token: server.token('1', 600) });
  const expiring = new Arrivals<{ expiresAt: string }>('a notice of expiry');
  device.client.on('bugle:token_expiring', expiring.push);
  await Promise.resolve();
  await device.client.updateToken(server.token('1', 1_200));
  await device.connected();
  const last = await expiring.find(({ expiresAt }) => Date.parse(expiresAt) > Date.now() + 900_000);
  expect(last).toBeDefined();
});
