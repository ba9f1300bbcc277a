import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';

import { Device } from './harness/device.js';
import { PollingSession, exchange, proxyWithoutWebSocket } from './harness/polling.js';
import { Recipe } from './harness/recipe.js';
import { Caller, heardSoFar } from './harness/recipe_calls.js';

const SCOPES = 'emit,presence,disconnect';
const ORIGIN = 'https://app.earntrack.example';
const REQUIRED = 'Authentication token required';
const INVALID = 'Invalid or expired token';
const ROOM = 'Notify/EmitToRoom';
const WINDOW = 100;
/** How long a token is good that expires while somebody watches: as long as a device may take to connect. */
const SHORT = 10_000;

const start = (context) =>
  Recipe.start(context, 'earnings', { scopes: SCOPES, environment: { BUGLE_AUTH__JWT__LEEWAY: '0s' } });
const recipe = await start({ after });
const { server } = recipe;
const backend = Caller.start({ after }, recipe, 'backend.py');

function open(t, token, { url = server.url, origin } = {}) {
  return recipe.device(t, [token], { env: { REACT_APP_API_URL: url, ...(origin && { ORIGIN: origin }) } });
}

/** The app's page of this user, connected by whatever transport it got: `upgraded` says which. */
async function connect(t, user, { token = recipe.token(user), ...options } = {}) {
  const page = open(t, token, options);
  // They come in either order.
  const printed = {};
  while (!('connected' in printed && 'upgraded' in printed)) Object.assign(printed, await page.lines.next());
  page.upgraded = printed.upgraded;
  return page;
}

const heard = (user, page) => heardSoFar(recipe, user, page);

/** What was heard, as `[event, data]`: each in an envelope of now. */
async function heardInEnvelopes(user, page) {
  return (await heard(user, page)).map(([name, { event, timestamp, data, ...more }, ...others]) => {
    assert.deepEqual([event, more, others], [name, {}, []]);
    isNow(timestamp);
    return [name, data];
  });
}

function isNow(timestamp) {
  assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.ok(Math.abs(Date.now() - Date.parse(timestamp)) < 60_000, timestamp);
}

const sentTo = (count) => ({ matched: count, enqueued: count, dropped: 0 });
const earning = (id, userId) => ({ id, userId, platformId: 'p-1', platform: 'Upwork', date: '2024-01-15', hours: 8, amount: 100 });

describe('the token', () => {
  test('when it is missing, is asked for in these words', async (t) => {
    for (const way of ['polling', 'websocket']) {
      const device = Device.open(t, server.url, { way });
      assert.equal(await device.refusals.next(), REQUIRED);
    }
  });

  test('when it is wrong or has expired, is refused in these words', async (t) => {
    for (const token of ['nonsense', recipe.token('late', {}, -60)]) {
      assert.deepEqual(await open(t, token).next('refused'), { refused: INVALID, active: false });
    }
  });
});

test('a token is verified on connection: the page stays when it expires', async (t) => {
  const user = 'stayer';
  const page = await connect(t, user, { token: recipe.token(user, {}, SHORT / 1_000) });
  assert.deepEqual(await heard(user, page), []);
  await page.lines.stayEmpty(SHORT + 500);
  assert.deepEqual(await backend.ask('emitToUser', user, 'custom:event', {}), sentTo(1));
});

describe('earnings', () => {
  test("go to the rooms of their user, to all the user's pages, and to nobody else's", async (t) => {
    const [laptop, phone, other] = await Promise.all(['alice', 'alice', 'bob'].map((user) => connect(t, user)));
    const [{ rooms }] = (await server.backend.getUser({ user_id: 'alice' })).connections;
    assert.deepEqual(rooms, ['earnings:alice', 'everyone', 'notifications:alice', 'user:alice']);
    const created = earning('e-1', 'alice');
    const update = { id: 'e-1', userId: 'alice', changes: { amount: 120, hours: 10 }, updatedAt: new Date().toISOString() };
    assert.deepEqual(await backend.askBy(ROOM, 'emitEarningCreated', 'alice', created), sentTo(2));
    assert.deepEqual(await backend.askBy(ROOM, 'emitEarningUpdated', 'alice', update), sentTo(2));
    assert.deepEqual(await backend.askBy(ROOM, 'emitEarningDeleted', 'alice', 'e-1'), sentTo(2));
    const expected = [['earnings:new', created], ['earnings:updated', update], ['earnings:deleted', { id: 'e-1' }]];
    for (const page of [laptop, phone]) assert.deepEqual(await heardInEnvelopes('alice', page), expected);
    assert.deepEqual(await heard('bob', other), []);
  });

  test('are shown by the page', async (t) => {
    const user = 'reader';
    const page = await connect(t, user);
    const [first, second] = ['e-1', 'e-2'].map((id) => earning(id, user));
    await backend.ask('emitEarningCreated', user, first);
    await backend.ask('emitEarningCreated', user, second);
    await backend.ask('emitEarningUpdated', user, { id: 'e-1', userId: user, changes: { amount: 120 } });
    await backend.ask('emitEarningDeleted', user, 'e-2');
    const changed = { ...first, amount: 120 };
    for (const earnings of [[first], [second, first], [second, changed], [changed]]) {
      assert.deepEqual(await page.next('shown'), { shown: 'earnings', earnings });
    }
  });

  test('of which none may be lost go out in one EmitBatch, and all arrive, in order', async (t) => {
    const user = 'importer';
    const page = await connect(t, user);
    const all = Array.from({ length: 500 }, (_, number) => earning(`e-${number}`, user));
    const receipts = await backend.askBy('Notify/EmitBatch', 'emitEarningsCreated', user, all);
    assert.deepEqual(receipts, all.map(() => sentTo(1)));
    assert.deepEqual(await heardInEnvelopes(user, page), all.map((one) => ['earnings:new', one]));
  });

  test('as totals that change often: the latest wins, and few are sent', async (t) => {
    const user = 'watcher';
    const page = await connect(t, user);
    const begun = Date.now();
    const receipts = await Promise.all(Array.from({ length: 300 }, (_, n) => backend.ask('emitDashboardTotals', user, { n })));
    assert.ok(receipts.some(({ deferred }) => deferred));
    const numbers = [];
    while (numbers.at(-1) !== 299) {
      const { payload: [{ n }] } = await page.next('event', 'dashboard:totals');
      assert.ok(n > (numbers.at(-1) ?? -1), 'in order');
      numbers.push(n);
    }
    const most = 2 + (Date.now() - begun) / WINDOW;
    assert.ok(numbers[0] === 0 && numbers.length <= most, `${numbers.length} arrived, and ${most} may`);
    assert.deepEqual(await heard(user, page), []);
  });
});

describe('notifications', () => {
  test('have their shape and go to one user', async (t) => {
    const [page, other] = await Promise.all(['alice', 'bob'].map((user) => connect(t, user)));
    for (const kind of ['Info', 'Success', 'Warning', 'Error']) {
      const call = [`send${kind}Notification`, 'alice', `About ${kind}`, 'New earning of $100 added to Upwork'];
      assert.deepEqual(await backend.askBy(ROOM, ...call), sentTo(1));
      const { notification } = await page.next('shown', 'notification');
      const { id, timestamp, ...rest } = notification;
      assert.match(id, /^notif_./);
      isNow(timestamp);
      const [title, message, type] = [`About ${kind}`, 'New earning of $100 added to Upwork', kind.toLowerCase()];
      assert.deepEqual(rest, { title, message, type, dismissible: true, duration: 5000 });
    }
    await backend.ask('sendInfoNotification', 'alice', 'once', 'more');
    const [[event, { title }]] = await heardInEnvelopes('alice', page);
    assert.deepEqual([event, title], ['notification', 'once']);
    assert.deepEqual(await heard('bob', other), []);
  });

  test('are broadcast to everyone', async (t) => {
    const users = ['alice', 'bob'];
    const pages = await Promise.all(users.map((user) => connect(t, user)));
    const maintenance = { id: 'notif_1', title: 'Server Maintenance', message: 'Down for 5 minutes', type: 'info' };
    assert.deepEqual(await backend.askBy('Notify/Broadcast', 'broadcastNotification', maintenance), sentTo(2));
    const expected = [['notification:broadcast', maintenance]];
    for (const [index, user] of users.entries()) assert.deepEqual(await heardInEnvelopes(user, pages[index]), expected);
  });
});

describe('the helpers', () => {
  test('send events of any name to a user, a room and everyone, as they are, by one call each', async (t) => {
    const [page, other] = await Promise.all(['alice', 'bob'].map((user) => connect(t, user)));
    const [hello, sync, announcement] = [{ message: 'Hello' }, { since: 5 }, { message: 'Maintenance scheduled' }];
    assert.deepEqual(await backend.askBy('Notify/EmitToUser', 'emitToUser', 'alice', 'custom:event', hello), sentTo(1));
    assert.deepEqual(await backend.askBy(ROOM, 'emitToRoom', 'notifications:alice', 'custom:sync', sync), sentTo(1));
    assert.deepEqual(await backend.askBy('Notify/Broadcast', 'broadcastEvent', 'server:announcement', announcement), sentTo(2));
    const forAll = ['server:announcement', announcement];
    assert.deepEqual(await heard('alice', page), [['custom:event', hello], ['custom:sync', sync], forAll]);
    assert.deepEqual(await heard('bob', other), [forAll]);
    assert.deepEqual(await backend.ask('emitToRoom', 'earnings:alice', 'earnings:sync', sync), sentTo(1));
    assert.deepEqual(await heardInEnvelopes('alice', page), [['earnings:sync', sync]]);
  });

  test('tell who is connected and how often, by one call each', async (t) => {
    const own = await start(t);
    const asked = Caller.start(t, own, 'backend.py');
    assert.deepEqual(await asked.askBy('Presence/ListUsers', 'getConnectedUsers'), []);
    const token = (user) => own.token(user);
    for (const user of ['alice', 'alice', 'bob']) await Device.open(t, own.server.url, { token: token(user) }).connects.next();
    assert.deepEqual(await asked.ask('getConnectedUsers'), ['alice', 'bob']);
    assert.equal(await asked.askBy('Presence/GetUsers', 'getUserSocketCount', 'alice'), 2);
    assert.equal(await asked.ask('getUserSocketCount', 'nobody'), 0);
  });

  test('disconnect a user on every page, by one call, and the pages stay away', async (t) => {
    const user = 'leaver';
    const [laptop, phone, other] = await Promise.all([user, user, 'bob'].map((name) => connect(t, name)));
    assert.equal(await backend.askBy('Notify/DisconnectUser', 'disconnectUser', user), 2);
    for (const page of [laptop, phone]) {
      assert.deepEqual(await page.next('disconnected'), { disconnected: 'io server disconnect' });
      assert.deepEqual(await page.next('said'), { said: ['WebSocket disconnected'] });
    }
    await Promise.all([laptop, phone].map((page) => page.lines.stayEmpty(2_000)));
    assert.equal(await backend.ask('getUserSocketCount', user), 0);
    assert.deepEqual(await backend.ask('emitToUser', 'bob', 'custom:event', {}), sentTo(1));
    assert.deepEqual(await heard('bob', other), [['custom:event', {}]]);
  });
});

describe('pages of other origins', () => {
  const handshake = (origin) => exchange(`${server.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin } });

  test('may connect if the configuration names them', async (t) => {
    const { status, headers } = await handshake(ORIGIN);
    assert.deepEqual([status, headers['access-control-allow-origin']], [200, ORIGIN]);
    const asking = { origin: ORIGIN, 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type' };
    const preflight = await exchange(`${server.url}/socket.io/?EIO=4&transport=polling`, { method: 'OPTIONS', headers: asking });
    assert.ok(preflight.status < 300, `${preflight.status}`);
    assert.equal(preflight.headers['access-control-allow-origin'], ORIGIN);
    const page = await connect(t, 'abroad', { origin: ORIGIN });
    assert.equal(page.upgraded, 'websocket');
  });

  test('may not otherwise, neither by long polling nor by WebSocket', async (t) => {
    for (const origin of ['https://elsewhere.example', 'http://app.earntrack.example', `${ORIGIN}.elsewhere.example`, 'null']) {
      const { status, headers } = await handshake(origin);
      assert.deepEqual([status, headers['access-control-allow-origin']], [403, undefined], origin);
    }
    const extraHeaders = { origin: 'https://elsewhere.example' };
    const device = Device.open(t, server.url, { way: 'websocket', token: recipe.token('alice'), extraHeaders });
    await device.failures.next();
    assert.deepEqual(device.connects.drain(), []);
  });
});

describe('the connection', () => {
  test('is pinged each 25 seconds, takes messages of 1 MB, and begins with long polling', async () => {
    const { pingInterval, maxPayload, upgrades } = (await PollingSession.open(server.url)).handshake;
    assert.deepEqual([pingInterval, maxPayload, upgrades], [25_000, 1_000_000, ['websocket']]);
  });

  test('takes a message just below 1 MB and ends at one above', async (t) => {
    for (const way of ['polling', 'websocket']) {
      const device = Device.open(t, server.url, { way, token: recipe.token('talker'), reconnection: false });
      await device.connects.next();
      const { error } = await device.ask('note', 'x'.repeat(990_000));
      assert.equal(error.code, 'unknown_event', way);
      device.socket.emit('note', 'x'.repeat(1_010_000));
      assert.match(await device.disconnects.next(), /^transport/, way);
    }
  });

  test('brings the page a payload of 1 MB', async (t) => {
    const page = await connect(t, 'large');
    const message = 'x'.repeat(1_000_000);
    assert.deepEqual(await backend.ask('emitToUser', 'large', 'custom:event', { message }), sentTo(1));
    assert.deepEqual(await heard('large', page), [['custom:event', { message }]]);
  });

  test('stays with long polling where no WebSocket gets through', async (t) => {
    const user = 'behind an old proxy';
    const page = await connect(t, user, { url: await proxyWithoutWebSocket(t, server.url) });
    assert.equal(page.upgraded, false);
    assert.deepEqual(await backend.ask('emitEarningDeleted', user, 'e-1'), sentTo(1));
    assert.deepEqual(await heardInEnvelopes(user, page), [['earnings:deleted', { id: 'e-1' }]]);
    const [{ transport }] = (await server.backend.getUser({ user_id: user })).connections;
    assert.equal(transport, 'TRANSPORT_SOCKETIO_POLLING');
  });

  test('compresses long answers to polls, if the device takes that, and no short ones', async () => {
    const user = 'by polling';
    const session = await PollingSession.open(server.url);
    await session.connect(recipe.token(user));
    const poll = (text, encoding) => session.pollFor((packet) => packet.includes(text), { 'accept-encoding': encoding });
    const list = Array.from({ length: 500 }, (_, number) => earning(`e-${number}`, user));
    const plain = JSON.stringify(['custom:list', list]).length;

    await backend.ask('emitToUser', user, 'custom:list', list);
    const long = await poll('custom:list', 'gzip, deflate, br');
    assert.equal(long.headers['content-encoding'], 'gzip');
    assert.ok(long.size < plain / 5, `${long.size} bytes of ${plain}`);
    const packet = long.text.split('\x1e').find((text) => text.includes('custom:list'));
    assert.deepEqual(JSON.parse(packet.slice(2)), ['custom:list', list]);

    await backend.ask('emitToUser', user, 'custom:list', list);
    const identity = await poll('custom:list', 'identity');
    assert.equal(identity.headers['content-encoding'], undefined);
    assert.ok(identity.size >= plain);

    await backend.ask('emitToUser', user, 'custom:short', {});
    assert.equal((await poll('custom:short', 'gzip')).headers['content-encoding'], undefined);
  });
});

describe('who does too much', () => {
  test('as a page is refused by the name of the limit, and cut off when it goes on all the same', async (t) => {
    const device = Device.open(t, server.url, { token: recipe.token('chatterbox') });
    await device.connects.next();
    const answers = await Promise.all(Array.from({ length: 30 }, () => device.ask('note')));
    assert.deepEqual(answers.slice(0, 20).map(({ error }) => error.code), Array(20).fill('unknown_event'));
    const { message, retryAfterMs } = answers.find(({ error }) => error.code === 'rate').error;
    assert.match(message, /limits\.client_events_per_connection/);
    assert.ok(retryAfterMs > 0, `${retryAfterMs}`);
    for (let count = 0; count < 200; count += 1) device.socket.emit('note');
    const [{ code, retry }] = await device.heard('bugle:disconnect').next();
    assert.deepEqual([code, retry], ['rate', true]);
    assert.match(await device.disconnects.next(), /^transport/);
  });

  test('as an address that connects again and again is told when to come back', async (t) => {
    const own = await start(t);
    const attempt = () => exchange(`${own.server.url}/socket.io/?EIO=4&transport=polling`);
    for (let count = 0; count < 500; count += 1) assert.equal((await attempt()).status, 200);
    let answer;
    for (let count = 0; count < 500 && answer?.status !== 429; count += 1) answer = await attempt();
    assert.equal(answer.status, 429);
    assert.match(answer.text, /limits\.connects_per_address/);
    assert.match(answer.headers['retry-after'], /^[1-9]\d*$/);
  });

  test('as a user who connects again and again is held up, never refused, and gets in', async (t) => {
    const own = await start(t);
    const token = own.token('restless');
    const [devices, refusals] = [[], []];
    let tries = 0;
    for (let round = 0; round < 10 && tries === 0; round += 1) {
      const more = Array.from({ length: 10 }, () => Device.open(t, own.server.url, { token }));
      await Promise.all(more.map((device) => device.connects.next()));
      devices.push(...more);
      tries = devices.flatMap((device) => device.attempts.drain()).length;
      refusals.push(...devices.flatMap((device) => device.refusals.drain()));
    }
    assert.ok(tries > 0, `${devices.length} got in at once`);
    assert.deepEqual(refusals, []);
  });

  test('as a backend is refused by the name of the limit, and told when to try again', async (t) => {
    const own = await start(t);
    const eager = Caller.start(t, own, 'backend.py');
    const batch = Array.from({ length: 1_000 }, (_, number) => earning(`e-${number}`, 'nobody'));
    const results = [];
    for (let round = 0; round < 5; round += 1) results.push(...(await eager.ask('emitEarningsCreated', 'nobody', batch)));
    const { refused, retryAfterMs } = results.find((result) => result.refused);
    assert.match(refused, /limits\.emits_per_api_key/);
    assert.ok(retryAfterMs > 0, `${retryAfterMs}`);
    assert.equal((await own.server.backend.emit('nobody', 'note')).matched, 0, 'other keys have their own');
  });
});

test('logs are written into files of the day: all of it, the errors alone, and each emit', async (t) => {
  const user = 'logged';
  const page = await connect(t, user);
  await backend.ask('emitEarningDeleted', user, 'e-secret');
  await open(t, 'a-token-that-is-none').next('refused');
  await page.stop();
  await server.log.find((line) => line.message === 'disconnected' && line['user.id'] === user);

  const directory = join(recipe.configuration.directory, 'logs');
  const days = [Date.now() - 60_000, Date.now()].map((time) => new Date(time).toISOString().slice(0, 10));
  const files = (name) => readdirSync(directory).filter((file) => days.some((day) => file === `${name}.${day}.log`));
  const [combined] = files('combined');
  const lines = recipe.follow(t, join('logs', combined));
  await lines.find((line) => line.message === 'connected' && line['user.id'] === user);
  await lines.find((line) => line.message === 'refused a device' && line['refusal.reason']);
  await lines.find((line) => line.message === 'disconnected' && line['user.id'] === user);
  const [errors] = files('error');
  assert.equal(readFileSync(join(directory, errors), 'utf8'), '', 'nothing went wrong');

  const audit = recipe.follow(t, join('logs', 'audit.log'));
  const entry = await audit.find(({ kind, event, audience }) => kind === 'emit' && event === 'earnings:deleted' && audience.includes(user));
  assert.deepEqual([entry.api_key, entry.matched, entry.enqueued], ['backend', 1, 1]);
  for (const file of readdirSync(directory)) {
    const text = readFileSync(join(directory, file), 'utf8');
    for (const secret of ['e-secret', 'a-token-that-is-none', recipe.configuration.backendKey]) assert.ok(!text.includes(secret), file);
  }
});
