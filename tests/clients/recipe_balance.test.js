import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { delimiter } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { WebSocket } from 'ws';

import { bugle, run } from './harness/binary.js';
import { Arrivals, within } from './harness/deadline.js';
import { Network } from './harness/network.js';
import { Recipe } from './harness/recipe.js';

const INVALID = { closed: 4401, reason: 'Invalid or expired token' };
const PATH = '/ws/balance/player';
const GRPCURL = fileURLToPath(new URL('harness/bin', import.meta.url));
const SCOPES = { scopes: 'emit:user' };
/** The app waits a second, then two, and so on: here the same in fiftieths. */
const QUICK = { env: { RECONNECT_DELAY: '20' } };
/** Leaves the test time to do something before the attempts are used up. */
const UNHURRIED = { env: { RECONNECT_DELAY: '300' } };

const recipe = await Recipe.start({ after }, 'balance', {
  ...SCOPES,
  environment: { BUGLE_AUTH__JWT__LEEWAY: '0s' },
});
const { server } = recipe;

const frame = (user, balance, currency = 'USD') => `{"user_id":"${user}","balance":"${balance}","currency":"${currency}"}`;
const baseUrl = (url) => url.replace(/^http/, 'ws');

/** Tells a balance by the recipe's backend; the receipt. */
async function tell(user, balance, { by = recipe, currency } = {}) {
  const { code, stdout, stderr } = await by.call('backend.sh', [user, balance, ...(currency ? [currency] : [])]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

/** The page of a player, before it has connected. */
function open(t, { by = recipe, url = by.server.url, token, env = QUICK.env }) {
  return by.device(t, [baseUrl(url), token], { env });
}

/** The page of a player, known to Bugle: its first frame is the last balance, told before. */
async function connect(t, user, options = {}) {
  await tell(user, '1.00', options);
  const page = open(t, { token: (options.by ?? recipe).token(user), ...options });
  await page.next('frame', frame(user, '1.00'));
  return page;
}

/** All that a page prints before the line that fits. */
async function upTo(page, fits) {
  const lines = [];
  for (;;) {
    const line = await page.lines.next();
    if (fits(line)) return lines;
    lines.push(line);
  }
}

const connectionIds = async (user) =>
  (await server.backend.getUser({ user_id: user })).connections.map(({ id }) => id);

describe('frames', { concurrency: true }, () => {
  test('each is the balance as it was told, and nothing else ever comes', async (t) => {
    const user = 'a5e168fb-168e-4183-84c5-d49038ce00b5';
    const page = await connect(t, user);
    const others = [
      () => server.backend.emit(user, 'note', { json: '{"text":"not a balance"}' }),
      () => server.backend.broadcast({ event: 'note', json: '{}' }),
    ];
    for (const other of others) await other();
    await tell(user, '255.50');
    const told = frame(user, '255.50');
    const before = await upTo(page, (line) => line.frame === told);
    await server.backend.disconnectUser({ user_id: user });
    const printed = [...before, ...(await upTo(page, (line) => 'closed' in line))];
    assert.ok(!printed.some((line) => 'frame' in line), JSON.stringify(printed));
  });

  test('other users hear nothing of it', async (t) => {
    const [page, other] = [await connect(t, 'winner'), await connect(t, 'other')];
    await tell('winner', '99.00', { currency: 'EUR' });
    assert.deepEqual(await page.next('frame'), { frame: frame('winner', '99.00', 'EUR') });
    await tell('other', '2.00');
    assert.deepEqual(await other.next('frame'), { frame: frame('other', '2.00') });
  });

  test('every listener of the one connection gets each', async (t) => {
    const user = 'listened';
    const page = await connect(t, user);
    await tell(user, '3.00');
    const data = { user_id: user, balance: '3.00', currency: 'USD' };
    await page.next('frame', frame(user, '3.00'));
    for (const listener of ['header', 'cashier']) assert.deepEqual(await page.next('listener'), { listener, data });
    assert.equal((await connectionIds(user)).length, 1);
  });

  test('a page that comes later gets the last balance at once', async (t) => {
    const user = 'returning';
    await tell(user, '7.00');
    await tell(user, '8.00');
    const page = open(t, { token: recipe.token(user) });
    assert.deepEqual(await page.next('frame'), { frame: frame(user, '8.00') });
  });

  test('of many balances at once the last comes last, and few of the others come', async (t) => {
    const window = 2_000;
    const slow = await Recipe.start(t, 'balance', { ...SCOPES, environment: { BUGLE_COLLAPSE__WINDOW: `${window}ms` } });
    const user = 'gambler';
    const page = open(t, { by: slow, token: slow.token(user) });
    await page.next('log', 'Balance WebSocket connected');
    const begun = Date.now();
    const receipts = [];
    for (let won = 1; won <= 20; won += 1) receipts.push(await tell(user, `${won}.00`, { by: slow }));
    const printed = [];
    const last = frame(user, '20.00');
    do printed.push((await page.next('frame')).frame); while (printed.at(-1) !== last);
    assert.ok(receipts.some(({ deferred }) => deferred));
    assert.ok(printed.length <= 2 + (Date.now() - begun) / window, printed.join());
    assert.ok(printed.length < receipts.length / 2, printed.join());
  });
});

describe('the token', { concurrency: true }, () => {
  test('a wrong one is told by the close code and its reason, and never by a frame', async (t) => {
    const user = 'stranger';
    await tell(user, '5.00');
    for (const token of ['nonsense', '', recipe.token(user, {}, -1), `${recipe.token(user)}x`]) {
      const page = open(t, { token });
      const printed = await upTo(page, (line) => 'closed' in line);
      assert.deepEqual(printed, [{ log: 'Balance WebSocket connected' }]);
    }
    assert.deepEqual(await open(t, { token: 'nonsense' }).next('closed'), INVALID);
  });

  test('a page that was refused comes back with the token that it got meanwhile', async (t) => {
    const user = 'late to log in';
    await recipe.server.backend.emit(user, 'balance', { json: '{"balance":"6.00"}' }, { retain: true });
    const page = open(t, { token: 'nonsense' });
    assert.deepEqual(await page.next('closed'), INVALID);
    page.tell({ token: recipe.token(user) });
    assert.deepEqual(await page.next('frame'), { frame: '{"balance":"6.00"}' });
  });

  test('is refreshed on the same connection; one that is not ends its connection when it expires', async (t) => {
    const user = 'refresher';
    const [refreshed, forgetful] = await Promise.all([connect(t, user), connect(t, user)]);
    const before = await connectionIds(user);
    assert.equal(before.length, 2);
    // Now that both are there: a page takes a while to start.
    for (const page of [refreshed, forgetful]) page.tell({ token: recipe.token(user, {}, 3) });
    refreshed.tell({ token: recipe.token(user) });
    assert.deepEqual(await forgetful.next('closed'), INVALID);
    assert.equal((await connectionIds(user)).filter((id) => before.includes(id)).length, 1);
    await tell(user, '9.00');
    await refreshed.next('frame', frame(user, '9.00'));
  });

  test('a wrong one in place of a good one ends the connection', async (t) => {
    const page = await connect(t, 'misled');
    page.tell({ token: recipe.token('misled', {}, -1) });
    assert.deepEqual(await page.next('closed'), INVALID);
  });
});

describe('coming back', { concurrency: true }, () => {
  const attempt = (number) => `Attempting to reconnect... (${number}/5)`;

  test('after a loss of the network the page has the balance that it missed, and its count begins anew', async (t) => {
    const user = 'traveller';
    const network = await Network.before(t, server.port);
    const page = await connect(t, user, { url: network.url, ...UNHURRIED });
    for (const balance of ['10.00', '11.00']) {
      await network.cut();
      for (const number of [1, 2]) await page.next('log', attempt(number));
      await tell(user, balance);
      await network.restore();
      await page.next('frame', frame(user, balance));
    }
  });

  test('a full server refuses before the upgrade: the count goes on to 5, then the last balance comes by REST', async (t) => {
    const full = await Recipe.start(t, 'balance', { ...SCOPES, environment: { BUGLE_LIMITS__CONNECTIONS_PER_ADDRESS: '1' } });
    const user = 'turned-away';
    await connect(t, 'who-takes-the-place', { by: full });
    await tell(user, '12.00', { by: full });
    const page = open(t, { by: full, token: full.token(user) });
    const printed = await upTo(page, (line) => 'fetched' in line);
    const told = printed.flatMap(({ log, error }) => log ?? error ?? []).filter((text) => !text.endsWith('error:'));
    assert.deepEqual(told, [
      ...[1, 2, 3, 4, 5].map((number) => ['Balance WebSocket disconnected', attempt(number)]).flat(),
      'Balance WebSocket disconnected',
      'Max reconnection attempts reached',
      'Falling back to REST API for balance updates',
    ]);
    const data = { user_id: user, balance: '12.00', currency: 'USD' };
    assert.deepEqual(await page.next('listener', 'cashier'), { listener: 'cashier', data });
    await tell(user, '13.00', { by: full });
    await page.lines.find((line) => line.data?.balance === '13.00');
  });

  test('a full server says when to try again', async (t) => {
    const full = await Recipe.start(t, 'balance', { ...SCOPES, environment: { BUGLE_LIMITS__CONNECTIONS: '1' } });
    await connect(t, 'first', { by: full });
    const { statusCode, headers } = await refusal(t, full);
    assert.equal(statusCode, 503);
    assert.match(headers['retry-after'], /^\d+$/);
  });

  test('a server that stops closes with 1001, and refuses before the upgrade while it does', async (t) => {
    const stopping = await Recipe.start(t, 'balance', { ...SCOPES, environment: { BUGLE_DRAIN__PACE: '1' } });
    const users = ['one', 'two', 'three', 'four'];
    const pages = await Promise.all(users.map((user) => connect(t, user, { by: stopping })));
    stopping.server.terminate();
    const page = await Promise.any(pages.map(async (page) => (await page.next('closed', 1001)) && page));
    const logged = (await upTo(page, ({ log }) => log === attempt(5))).map(({ log }) => log);
    for (const number of [1, 2, 3, 4]) assert.ok(logged.includes(attempt(number)), logged.join());
    assert.ok(!logged.includes('Balance WebSocket connected'));
  });

  /** How Bugle answers to somebody who asks for the WebSocket. */
  async function refusal(t, { server: { url } }, options = {}) {
    const answers = new Arrivals('a refusal before the upgrade');
    const socket = new WebSocket(`${baseUrl(url)}${PATH}`, options);
    t.after(() => socket.terminate());
    socket.on('error', () => {});
    socket.on('unexpected-response', (_, answer) => answers.push(answer));
    return answers.next();
  }

  test('pages of other hosts are refused before the upgrade, those that are listed may ask over REST too', async (t) => {
    assert.equal((await refusal(t, recipe, { origin: 'https://elsewhere.example' })).statusCode, 403);
    const page = new WebSocket(`${baseUrl(server.url)}${PATH}`, { origin: 'http://localhost:3000' });
    t.after(() => page.terminate());
    const opened = new Promise((resolve, reject) => page.on('open', resolve).on('error', reject));
    await within(opened, 'the WebSocket of a listed page');
    const answer = await retained(recipe.token('listed'), { origin: 'http://localhost:3000' });
    assert.equal(answer.headers.get('access-control-allow-origin'), 'http://localhost:3000');
  });
});

function retained(token, headers = {}) {
  const authorization = token && { authorization: `Bearer ${token}` };
  return fetch(`${server.url}/bugle/retained/balance`, { headers: { ...authorization, ...headers } });
}

describe('the last balance by REST', () => {
  test("is the payload alone, of the token's own user", async () => {
    await tell('asker', '14.00');
    await tell('somebody-else', '15.00');
    const answer = await retained(recipe.token('asker'));
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type'), /^application\/json/);
    assert.equal(await answer.text(), frame('asker', '14.00'));
  });

  test('there is none for who has none, and none without a good token', async () => {
    assert.equal((await retained(recipe.token('without'))).status, 404);
    for (const token of [undefined, 'nonsense', recipe.token('asker', {}, -1)]) assert.equal((await retained(token)).status, 401);
  });
});

describe('the backend', () => {
  test('has an API key that does nothing else', async () => {
    const env = recipe.backendEnvironment;
    for (const command of [['emit', 'all', 'balance', '{}'], ['emit', 'room', 'players', 'balance', '{}'], ['presence']]) {
      const { code, stderr } = await bugle(command, { env });
      assert.equal(code, 1);
      assert.match(stderr, /PERMISSION_DENIED/);
    }
  });

  test("is grpcurl as well, as the recipe's README has it", async (t) => {
    const page = await connect(t, '42');
    const readme = readFileSync(new URL('../../clients/recipes/balance/README.md', import.meta.url), 'utf8');
    const command = readme.match(/^grpcurl [^]*?(?=\n```)/m)[0];
    assert.ok(command.includes('127.0.0.1:50051'));
    const { code, stderr } = await run('bash', ['-c', command.replace('127.0.0.1:50051', server.grpcAddress)], {
      env: { ...recipe.backendEnvironment, PATH: `${GRPCURL}${delimiter}${process.env.PATH}` },
    });
    assert.equal(code, 0, stderr);
    const { frame: told } = await page.next('frame');
    assert.deepEqual(JSON.parse(told), { user_id: '42', balance: '255.50', currency: 'USD' });
  });

  test('takes nothing that would not be the balance', async () => {
    for (const args of [['a"b', '1.00'], ['player', '1",'], ['player', ''], ['player']]) {
      assert.notEqual((await recipe.call('backend.sh', args)).code, 0, args.join());
    }
  });
});

describe('the audit log', () => {
  test('has each change of a balance with its receipt, and no balance', async (t) => {
    const user = 'audited';
    const lines = recipe.follow(t, 'audit.log');
    server.log.drain();
    open(t, { token: recipe.token(user) });
    await server.log.find((line) => line.message === 'connected' && line['user.id'] === user);
    const receipt = await tell(user, '1234567.89');
    const line = await lines.find(({ message_id: id }) => id === receipt.message_id);
    assert.ok(!JSON.stringify(line).includes('1234567.89'));
    const { kind, api_key, audience, event, matched, enqueued, dropped } = line;
    assert.deepEqual(
      { kind, api_key, audience, event, matched, enqueued, dropped },
      { kind: 'emit', api_key: 'backend', audience: `user:${user}`, event: 'balance', matched: 1, enqueued: 1, dropped: 0 },
    );
    assert.ok(Math.abs(Date.parse(line.time) - Date.now()) < 60_000);
  });
});
