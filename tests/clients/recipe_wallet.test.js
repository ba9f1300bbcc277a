import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Device } from './harness/device.js';
import { Network } from './harness/network.js';
import { Nginx } from './harness/nginx.js';
import { Recipe } from './harness/recipe.js';

const NGINX = fileURLToPath(new URL('../../clients/recipes/wallet/nginx.conf', import.meta.url));
const REQUIRED = 'Authentication token required';
const INVALID = 'Invalid or expired token';
const MINUTE = 60_000;

const recipe = await Recipe.start({ after }, 'wallet', {
  scopes: 'emit:user',
  environment: { BUGLE_AUTH__JWT__LEEWAY: '0s' },
});
const { server } = recipe;
const rest = recipe.backend({ after }, 'backend.mjs', ['0'], { env: { JWT_SECRET: recipe.configuration.secret } });
const { listening } = await rest.lines.next();

async function ask(user, method, path, body, claims) {
  const answer = await fetch(`${listening}${path}`, {
    method,
    headers: { authorization: `Bearer ${recipe.token(user, claims)}` },
    body: body && JSON.stringify(body),
  });
  assert.equal(answer.status, 200, `${method} ${path}`);
  return answer.json();
}

const post = (user, path, body, claims) => ask(user, 'POST', path, body, claims);
const walletOf = async (user) => (await ask(user, 'GET', '/wallets/main')).walletId;
const ADMIN = { role: 'admin' };

/** The app on a device of this user, connected. */
async function connect(t, user, { snippet = 'useRealtime', url = server.url, token = recipe.token(user), env } = {}) {
  const device = recipe.device(t, [url, token, snippet], { env });
  await device.next('connected');
  return device;
}

/** What the app's listeners are called with next: for events that carry one payload. */
async function heard(device, count) {
  const events = [];
  while (events.length < count) {
    const { event, payload } = await device.next('event');
    if (event !== 'PONG') events.push([event, ...payload]);
  }
  return events;
}

const update = (walletId, balance) => ['WALLET_UPDATE', { walletId, balance }];
const created = (walletId, transactionId) => ['TRANSACTION_CREATED', { transactionId, walletId }];

/** A deposit reaches each of these devices of a user. */
async function reaches(user, devices) {
  const before = (await ask(user, 'GET', '/wallets/main')).balance;
  const { transactionIds } = await post(user, '/deposits', { amount: '1' });
  const walletId = await walletOf(user);
  const expected = [update(walletId, (Number(before) + 1).toFixed(2)), created(walletId, transactionIds[0])];
  for (const device of devices) assert.deepEqual(await heard(device, 2), expected);
}

describe('the token', { concurrency: true }, () => {
  test('is taken from auth.token as it is, from auth.token after Bearer, and from the query', async (t) => {
    for (const snippet of ['useRealtime', 'handshakeAuth', 'queryParameter']) {
      const user = `by ${snippet}`;
      await reaches(user, [await connect(t, user, { snippet })]);
    }
  });

  test('when it is missing, the device is rejected and disconnected', async (t) => {
    const device = Device.open(t, server.url, { path: '/ws' });
    assert.equal(await device.refusals.next(), REQUIRED);
    assert.equal(device.socket.active, false);
    assert.equal(device.socket.io.engine.readyState, 'closed');
    const inQuery = recipe.device(t, [server.url, '', 'queryParameter']);
    assert.deepEqual(await inQuery.lines.next(), { refused: REQUIRED, active: false });
  });

  test('when it is bad, the device is rejected and disconnected', async (t) => {
    const user = 'with bad tokens';
    const bad = ['nonsense', recipe.token(user, {}, -1), `${recipe.token(user)}x`];
    for (const snippet of ['useRealtime', 'handshakeAuth', 'queryParameter']) {
      for (const token of bad) {
        const device = recipe.device(t, [server.url, token, snippet]);
        assert.deepEqual(await device.lines.next(), { refused: INVALID, active: false });
      }
    }
    assert.equal((await server.backend.getUser({ user_id: user })).online, false);
  });
});

describe('what flows tell', () => {
  test('a transfer tells both users of balance and transaction, in one EmitBatch, and nobody else', async (t) => {
    const [source, destination, other] = ['source', 'destination', 'a third'];
    await post(source, '/deposits', { amount: '100.50' });
    const devices = await Promise.all([source, destination, other].map((user) => connect(t, user)));
    const calls = () => Promise.all([
      recipe.metric('bugle_grpc_calls_total', { method: 'bugle.v1.Notify/EmitBatch', code: 'OK' }),
      recipe.metric('bugle_emits_total', { audience: 'user', outcome: 'sent' }),
    ]);
    const [batches, emits] = await calls();
    const { transactionIds } = await post(source, '/transfers', { to: destination, amount: '0.45' });
    assert.deepEqual(await calls(), [batches + 1, emits + 4]);
    const [from, to] = await Promise.all([source, destination].map(walletOf));
    assert.deepEqual(await heard(devices[0], 2), [update(from, '100.05'), created(from, transactionIds[0])]);
    assert.deepEqual(await heard(devices[1], 2), [update(to, '0.45'), created(to, transactionIds[0])]);
    // What the third would have heard of the transfer comes before this.
    await reaches(other, [devices[2]]);
  });

  test('deposits and withdrawals tell their user', async (t) => {
    const user = 'saver';
    const walletId = await walletOf(user);
    const device = await connect(t, user);
    for (const [path, balance] of [['/deposits', '20.00'], ['/withdrawals', '0.00']]) {
      const { transactionIds } = await post(user, path, { amount: '20' });
      assert.deepEqual(await heard(device, 2), [update(walletId, balance), created(walletId, transactionIds[0])]);
    }
  });

  test('a time deposit tells its user of the debit, the credit and dividends; a last payout is two transactions', async (t) => {
    const user = 'investor';
    const walletId = await walletOf(user);
    await post(user, '/deposits', { amount: '100' });
    const device = await connect(t, user);
    const step = async (id, name, body, balance) => {
      const { transactionIds } = await post('officer', `/time-deposits/${id}/${name}`, body, ADMIN);
      const expected = [update(walletId, balance), ...transactionIds.map((one) => created(walletId, one))];
      assert.deepEqual(await heard(device, expected.length), expected);
      return transactionIds.length;
    };
    const cancelled = await post(user, '/time-deposits', { amount: '60' });
    assert.equal(await step(cancelled.id, 'approval', {}, '40.00'), 1);
    assert.equal(await step(cancelled.id, 'cancellation', {}, '100.00'), 1);
    const { id } = await post(user, '/time-deposits', { amount: '100' });
    assert.equal(await step(id, 'approval', {}, '0.00'), 1);
    assert.equal(await step(id, 'dividends', { amount: '2.5' }, '2.50'), 1);
    assert.equal(await step(id, 'dividends', { amount: '2.5', last: true }, '105.00'), 2);
  });

  test('the app shows the new balance and fetches its transactions', async (t) => {
    const user = 'onlooker';
    const device = await connect(t, user);
    await post(user, '/deposits', { amount: '3' });
    assert.deepEqual(await device.next('shown'), { shown: 'balance', walletId: await walletOf(user), balance: '3.00' });
    assert.deepEqual(await device.next('shown'), { shown: 'transactions' });
    assert.equal((await ask(user, 'GET', '/transactions')).length, 1);
  });
});

describe('the heartbeat', () => {
  test('a PING is answered by a PONG', async (t) => {
    const device = await connect(t, 'alive', { snippet: 'handshakeAuth' });
    assert.deepEqual(await device.next('event'), { event: 'PONG', payload: [] });
  });

  test('is all that a device may send', async (t) => {
    const device = Device.open(t, server.url, { path: '/ws', token: recipe.token('talkative') });
    await device.connects.next();
    assert.deepEqual(await device.ask('PING'), { ok: true });
    for (const event of ['PONG', 'WALLET_UPDATE', 'join']) {
      const { error } = await device.ask(event, { walletId: 'w', balance: '1' });
      assert.equal(error.code, 'unknown_event', event);
    }
  });
});

describe('the devices of a user', () => {
  test('are in the room user:{userId}, and all get everything', async (t) => {
    const user = 'phone and tablet';
    const snippets = ['useRealtime', 'handshakeAuth', 'queryParameter'];
    const devices = await Promise.all(snippets.map((snippet) => connect(t, user, { snippet })));
    const { connections } = await server.backend.getUser({ user_id: user });
    assert.equal(connections.length, devices.length);
    for (const { rooms } of connections) assert.ok(rooms.includes(`user:${user}`));
    await reaches(user, devices);
  });

  test('one that disconnects leaves the pool, and the others stay', async (t) => {
    const user = 'leaver';
    const [stays, goes] = [await connect(t, user), await connect(t, user)];
    server.log.drain();
    await goes.stop();
    await server.log.find((line) => line.message === 'disconnected' && line['user.id'] === user);
    assert.equal((await server.backend.getUser({ user_id: user })).connections.length, 1);
    const { matched } = await server.backend.emit(user, 'WALLET_UPDATE', { json: '{}' });
    assert.equal(matched, 1);
    assert.deepEqual(await heard(stays, 1), [['WALLET_UPDATE', {}]]);
  });
});

describe('coming back', { concurrency: true }, () => {
  test('after a loss of the network a device comes back by itself', async (t) => {
    const user = 'traveller';
    const network = await Network.before(t, server.port);
    const device = await connect(t, user, { url: network.url });
    await network.cut();
    assert.match((await device.next('disconnected')).disconnected, /^transport /);
    await device.next('attempt', 1);
    await network.restore();
    await device.next('connected', undefined, MINUTE);
    await reaches(user, [device]);
  });

  test('with a token that has expired meanwhile it is refused, with a fresh one accepted; who stayed, stays', async (t) => {
    const user = 'late';
    const lifetime = 10;
    const token = recipe.token(user, {}, lifetime);
    const expired = Date.now() + lifetime * 1_000;
    const network = await Network.before(t, server.port);
    const stayed = await connect(t, user, { token });
    const device = await connect(t, user, { token, url: network.url });
    await network.cut();
    do await device.next('attempt', undefined, MINUTE); while (Date.now() < expired);
    await network.restore();
    assert.deepEqual(await device.next('refused', INVALID, MINUTE), { refused: INVALID, active: false });
    device.tell({ token: recipe.token(user) });
    await device.next('connected');
    await reaches(user, [device, stayed]);
  });
});

describe('behind nginx with TLS, on one host with the REST API', () => {
  const before = (t) => Nginx.before(t, NGINX, 8443, { 3000: server.port, 3001: new URL(listening).port });

  function askNginx(nginx, user, method, path, body) {
    return new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${recipe.token(user)}` };
      const call = request(`${nginx.url}${path}`, { method, headers, ca: readFileSync(nginx.certificate) }, async (answer) => {
        resolve(JSON.parse((await answer.toArray()).join('')));
      });
      call.on('error', reject).end(body && JSON.stringify(body));
    });
  }

  test('the REST API answers, and the app hears of it by WebSocket, by upgrade and with the token in the query', async (t) => {
    const nginx = await before(t);
    const user = 'secured';
    const options = { url: nginx.url, env: { NODE_EXTRA_CA_CERTS: nginx.certificate } };
    const snippets = ['useRealtime', 'handshakeAuth', 'queryParameter'];
    const devices = await Promise.all(snippets.map((snippet) => connect(t, user, { ...options, snippet })));
    const { walletId } = await askNginx(nginx, user, 'GET', '/wallets/main');
    const { transactionIds } = await askNginx(nginx, user, 'POST', '/deposits', { amount: '5' });
    for (const device of devices) {
      assert.deepEqual(await heard(device, 2), [update(walletId, '5.00'), created(walletId, transactionIds[0])]);
    }
    // Its log has the requests, but no token.
    const log = await nginx.logged(['GET /ws/ 200', 'POST /ws/ 200', 'POST /deposits 200']);
    assert.ok(!log.includes('eyJ') && !log.includes('EIO'));
  });

  for (const way of ['polling', 'websocket', 'upgrade']) {
    test(`by ${way} Bugle knows the device's own address`, async (t) => {
      const nginx = await before(t);
      const user = `by ${way}`;
      const ca = readFileSync(nginx.certificate);
      const agent = new Agent({ ca, localAddress: '127.0.0.2' });
      const device = Device.open(t, nginx.url, { path: '/ws', way, token: recipe.token(user), agent, ca });
      t.after(() => agent.destroy());
      await device.connects.next();
      await device.settled();
      const { connections } = await server.backend.getUser({ user_id: user });
      assert.deepEqual(connections.map(({ address }) => address), ['127.0.0.2']);
      await server.backend.emit(user, 'note', { json: '"hello"' });
      assert.deepEqual(await device.heard('note').next(), ['hello']);
    });
  }

  test('a bad token is refused, and so is a page of another host', async (t) => {
    const nginx = await before(t);
    const ca = readFileSync(nginx.certificate);
    const open = (way, origin, token) =>
      Device.open(t, nginx.url, { path: '/ws', way, ca, token, extraHeaders: { origin }, reconnection: false });
    for (const way of ['polling', 'websocket']) {
      assert.equal(await open(way, nginx.url, 'nonsense').refusals.next(), INVALID);
      await open(way, nginx.url, recipe.token('page')).connects.next();
      const elsewhere = open(way, 'https://elsewhere.example', recipe.token('page'));
      await elsewhere.failures.next();
      assert.equal(elsewhere.connects.drain().length, 0);
    }
  });
});
