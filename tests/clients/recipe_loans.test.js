import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Device } from './harness/device.js';
import { Network } from './harness/network.js';
import { Recipe } from './harness/recipe.js';
import { Caller, heardSoFar } from './harness/recipe_calls.js';

const SCOPES = 'emit:user,emit:room:role:admin,emit:room:marketplace,presence';
const ROOM = 'Notify/EmitToRoom';
const USER = 'Notify/EmitToUser';
const CONSOLE = '/test/websocket';

/** How long a token is good that expires while somebody watches: as long as a device may take to connect. */
const SHORT = 10_000;

const recipe = await Recipe.start({ after }, 'loans', {
  scopes: SCOPES,
  environment: { BUGLE_AUTH__JWT__LEEWAY: '0s' },
});
const { server } = recipe;
const backend = Caller.start({ after }, recipe, 'backend.mjs');

/** The app on a device of this user, connected. */
async function connect(t, user, role, { url = server.url, env, expiresIn, page = [] } = {}) {
  const device = recipe.device(t, [url, recipe.token(user, { role }, expiresIn), ...page], { env });
  await device.next('status', 'Connected');
  return device;
}

/**
 * Waits until there are no other connections than these. A session that polled when its device or network went ends two seconds later; one that was
 * between two polls, within the ping timeout of 20 s.
 */
async function onlyConnected(count) {
  const deadline = Date.now() + 30_000;
  while ((await server.backend.getStats({})).connections > count) assert.ok(Date.now() < deadline, 'the old sessions end');
}

const heard = (user, device) => heardSoFar(recipe, user, device);

/** What was heard, each with a timestamp of now that is taken off. */
async function heardNow(user, device) {
  const events = await heard(user, device);
  return events.map(([event, { timestamp, ...data }, ...more]) => {
    assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.ok(Math.abs(Date.now() - Date.parse(timestamp)) < 60_000, timestamp);
    return [event, data, ...more];
  });
}

const sentTo = (count) => ({ matched: count, enqueued: count, dropped: 0 });
const loan = { loanId: 'loan-1', userId: 'alice', amount: 500, purpose: 'a bicycle', collateral: { token: 'ETH', amount: 0.3 } };

describe('who hears what', () => {
  test('new loans and notifications are for admins, on all their devices, and for nobody else', async (t) => {
    const admins = [['officer', 'admin'], ['officer', 'admin'], ['chief', ['user', 'admin']]];
    const others = [['alice', 'user'], ['nobody', undefined], ['pretender', 'administrator']];
    const devices = await Promise.all([...admins, ...others].map(([user, role]) => connect(t, user, role)));
    assert.deepEqual(await backend.askBy(ROOM, 'emitLoanRequest', loan), sentTo(3));
    const notification = ['loan_request', `New loan request for $${loan.amount}`, loan];
    assert.deepEqual(await backend.askBy(ROOM, 'emitAdminNotification', ...notification), sentTo(3));
    const [type, message, data] = notification;
    const expected = [['loan:new', loan], ['admin:notification', { type, message, data }]];
    for (const [index, [user]] of admins.entries()) assert.deepEqual(await heardNow(user, devices[index]), expected, user);
    for (const [index, [user]] of others.entries()) {
      assert.deepEqual(await heard(user, devices[admins.length + index]), [], user);
    }
  });

  test('what becomes of a loan and of an identity check is for its user, on all devices, and for nobody else', async (t) => {
    const [phone, tablet, other, admin] = await Promise.all([
      connect(t, 'alice', 'user'),
      connect(t, 'alice', 'user'),
      connect(t, 'bob', 'user'),
      connect(t, 'officer', 'admin'),
    ]);
    const calls = [
      ['emitLoanStatusUpdate', 'alice', 'loan-1', 'approved', 500],
      ['emitLoanStatusUpdate', 'alice', 'loan-2', 'rejected', null, 'no collateral'],
      ['emitLoanFunded', 'alice', 'loan-1', '0x5f3a', 'nft-1', 500],
      ['emitKycStatusUpdate', 'alice', 'approved'],
      ['emitKycStatusUpdate', 'alice', 'rejected', 'the picture is blurred'],
    ];
    for (const call of calls) assert.deepEqual(await backend.askBy(USER, ...call), sentTo(2));
    const userId = 'alice';
    const expected = [
      ['loan:status', { loanId: 'loan-1', userId, status: 'approved', amount: 500 }],
      ['loan:status', { loanId: 'loan-2', userId, status: 'rejected', rejectionReason: 'no collateral' }],
      ['loan:funded', { loanId: 'loan-1', userId, txHash: '0x5f3a', nftId: 'nft-1', amount: 500 }],
      ['kyc:status', { userId, status: 'approved' }],
      ['kyc:status', { userId, status: 'rejected', rejectionReason: 'the picture is blurred' }],
    ];
    for (const device of [phone, tablet]) assert.deepEqual(await heardNow('alice', device), expected);
    assert.deepEqual(await heard('bob', other), []);
    assert.deepEqual(await heard('officer', admin), []);
  });

  test("the app's own listener gets a loan's status", async (t) => {
    const device = await connect(t, 'onlooker', 'user');
    await backend.ask('emitLoanStatusUpdate', 'onlooker', 'loan-3', 'approved', 5);
    const { said } = await device.next('said');
    assert.deepEqual([said[0], said[1].loanId], ['Loan status updated:', 'loan-3']);
  });

  test('the marketplace is for everyone who is connected, by configuration', async (t) => {
    const people = [['alice', 'user'], ['officer', 'admin'], ['nobody', undefined]];
    const devices = await Promise.all(people.map(([user, role]) => connect(t, user, role)));
    await onlyConnected(people.length);
    assert.deepEqual(await backend.askBy(ROOM, 'emitMarketplaceUpdate', 'repayment', 'loan-1', 'nft-1', 20), sentTo(3));
    const expected = [['marketplace:update', { type: 'repayment', loanId: 'loan-1', nftId: 'nft-1', amount: 20 }]];
    for (const [index, [user]] of people.entries()) assert.deepEqual(await heardNow(user, devices[index]), expected, user);
  });

  test("the backend's key may tell these and nobody else", async () => {
    const elsewhere = await server.backend.emitToRoom({ room: 'elsewhere', event: 'note' });
    assert.equal(elsewhere.receipt.matched, 0);
    const { status } = await emitByConsole({ room: 'elsewhere', event: 'note' });
    assert.equal(status, 403);
  });
});

describe('the roles', () => {
  /** The answer to an event that a device sends. */
  async function ask(device, ...event) {
    device.tell(event);
    return (await device.next('answer')).answer;
  }

  test("a user who tries to join an admins' room is refused, logged and kept out", async (t) => {
    const audit = recipe.follow(t, 'audit.log');
    const device = await connect(t, 'intruder', 'user');
    server.log.drain();
    const { error } = await ask(device, 'subscribe:admin', 'overview');
    assert.equal(error.code, 'forbidden');
    const line = await server.log.find(({ message }) => message === 'refused a client event');
    assert.deepEqual([line['user.id'], line['refusal.reason']], ['intruder', 'forbidden']);
    assert.match(line['event.name'], /subscribe:admin/);
    const entry = await audit.find(({ kind, user }) => kind === 'refusal' && user === 'intruder');
    assert.deepEqual([entry.code, entry.event], ['forbidden', 'subscribe:admin']);
    const { receipt } = await server.backend.emitToRoom({ room: 'admin:overview', event: 'admin:statistics' });
    assert.equal(receipt.matched, 0);
    assert.deepEqual(await heard('intruder', device), []);
  });

  test('an admin joins it', async (t) => {
    const device = await connect(t, 'officer', 'admin');
    assert.deepEqual(await ask(device, 'subscribe:admin', 'overview'), { ok: true });
    const emitted = await server.backend.emitToRoom({ room: 'admin:overview', event: 'admin:statistics', json: '{"open":3}' });
    assert.equal(emitted.receipt.enqueued, 1);
    assert.deepEqual(await heard('officer', device), [['admin:statistics', { open: 3 }]]);
    const { error } = await ask(device, 'subscribe:admin', { room: 'overview' });
    assert.equal(error.code, 'invalid_argument');
  });

  test('no other event leads into a room of a role', async (t) => {
    const device = await connect(t, 'inventor', 'user');
    const tries = [['join', 'role:admin'], ['subscribe', 'role:admin'], ['marketplace', 'x'], ['loan:new', loan]];
    for (const event of tries) assert.equal((await ask(device, ...event)).error.code, 'unknown_event', event[0]);
    const [{ rooms }] = (await server.backend.getUser({ user_id: 'inventor' })).connections;
    assert.deepEqual(rooms, ['everyone', 'marketplace', 'role:user', 'user:inventor']);
  });

  test('only the token tells a role', async (t) => {
    const auth = { token: recipe.token('boaster', { role: 'user' }), role: 'admin', roles: ['admin'] };
    const device = Device.open(t, server.url, { auth, query: { role: 'admin' } });
    await device.connects.next();
    const [{ rooms }] = (await server.backend.getUser({ user_id: 'boaster' })).connections;
    assert.deepEqual(rooms, ['everyone', 'marketplace', 'role:user', 'user:boaster']);
  });

  test('who brings no good token is refused, and told why', async (t) => {
    const cases = [['', 'Authentication token required'], [recipe.token('late', {}, -60), 'Invalid or expired token']];
    for (const [token, message] of cases) {
      const { error, active } = await recipe.device(t, [server.url, token]).next('error');
      assert.deepEqual([error, active], [message, false]);
    }
  });
});

describe("the admins' unread counter", () => {
  const page = ['AdminOverview'];
  const notify = (message) => backend.askBy(ROOM, 'emitAdminNotification', 'system_alert', message);

  test("is each admin's own, the same on all devices, and right after an absence", async (t) => {
    const phone = await connect(t, 'keeper', 'admin', { page });
    await phone.next('unread');
    phone.tell('markAllRead');
    await phone.next('unread', 0);
    for (const message of ['one', 'two']) await notify(message);
    await phone.next('unread', 2);
    const tablet = await connect(t, 'keeper', 'admin', { page });
    await tablet.next('unread', 2);
    const colleague = await connect(t, 'colleague', 'admin', { page });
    const { unread } = await colleague.next('unread');
    assert.ok(unread >= 2, `${unread}`);
    tablet.tell('markAllRead');
    for (const device of [phone, tablet]) await device.next('unread', 0);
    await Promise.all([phone.stop(), tablet.stop()]);
    await notify('three');
    await colleague.next('unread', unread + 1);
    const again = await connect(t, 'keeper', 'admin', { page });
    assert.equal((await again.next('unread')).unread, 1);
  });

  test('is not for users', async (t) => {
    const device = await connect(t, 'curious', 'user', { page });
    assert.equal((await device.next('refused')).refused, 403);
  });
});

function emitByConsole(emit, key = recipe.configuration.backendKey) {
  return fetch(`${server.adminUrl}${CONSOLE}/api/emit`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    body: JSON.stringify(emit),
  });
}

describe('the console', () => {
  test('is at /test/websocket of the admin listener, and nowhere else', async () => {
    const page = await fetch(server.adminUrl + CONSOLE);
    assert.equal(page.status, 200);
    assert.match(page.headers.get('content-type'), /^text\/html/);
    const text = await page.text();
    assert.match(text, /<html/);
    assert.doesNotMatch(text, /(src|href)="(https?:)?\/\//, 'it asks no other host');
    assert.equal((await fetch(`${server.adminUrl}/console`)).status, 404);
    assert.equal((await fetch(server.url + CONSOLE)).status, 404);
  });

  test('may connect as a device, and pages of other origins may not', async () => {
    const open = (origin) => fetch(`${server.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin } });
    assert.equal((await open(server.adminUrl)).status, 200);
    assert.equal((await open('https://elsewhere.example')).status, 403);
  });

  test('simulates events with an API key, and tells who heard', async (t) => {
    const device = await connect(t, 'simulated', 'user');
    const event = { user_id: 'simulated', event: 'loan:funded', json: '{"loanId":"loan-9"}' };
    const answer = await emitByConsole(event);
    assert.equal(answer.status, 200);
    assert.deepEqual(sentTo(1), (({ matched, enqueued, dropped }) => ({ matched, enqueued, dropped }))(await answer.json()));
    assert.deepEqual(await heard('simulated', device), [['loan:funded', { loanId: 'loan-9' }]]);
    for (const key of [null, 'x'.repeat(32)]) assert.equal((await emitByConsole(event, key)).status, 401);
    assert.deepEqual(await heard('simulated', device), []);
  });
});

test('a token is verified on connection: the device stays when it expires', async (t) => {
  const device = await connect(t, 'stayer', 'user', { expiresIn: SHORT / 1_000 });
  assert.deepEqual(await heard('stayer', device), []);
  await device.lines.stayEmpty(SHORT + 500);
  assert.deepEqual(await backend.ask('emitKycStatusUpdate', 'stayer', 'approved'), sentTo(1));
});

describe('the connection', () => {
  /** A short wait instead of the app's second. */
  const FIRST_DELAY = 100;
  const env = { RECONNECTION_DELAY: `${FIRST_DELAY}` };

  test('comes back by itself when the network was gone, with its rooms', async (t) => {
    const network = await Network.before(t, server.port);
    const device = await connect(t, 'traveller', 'admin', { url: network.url, env });
    await network.cut();
    await device.next('status', 'Disconnected');
    await network.restore();
    await device.next('status', 'Connected');
    await onlyConnected(1);
    assert.deepEqual(await backend.ask('emitLoanRequest', loan), sentTo(1));
    assert.deepEqual(await backend.ask('emitMarketplaceUpdate', 'new_listing', 'loan-1'), sentTo(1));
    const events = await heardNow('traveller', device);
    assert.deepEqual(events.map(([event]) => event), ['loan:new', 'marketplace:update']);
  });

  test('is tried five times, each time after twice the wait, and then given up', async (t) => {
    const network = await Network.before(t, server.port);
    const device = await connect(t, 'stranded', 'user', { url: network.url, env });
    await network.cut();
    let { ms } = await device.next('status', 'Disconnected');
    for (let attempt = 1; attempt <= 5; attempt += 1) {
      const tried = await device.next('attempt');
      assert.equal(tried.attempt, attempt);
      // The client waits half as long or half as long again, so that not all come at once; the line has whole milliseconds.
      const least = (FIRST_DELAY * 2 ** (attempt - 1)) / 2 - 2;
      assert.ok(tried.ms - ms >= least, `${tried.ms - ms} ms before attempt ${attempt}, and not ${least}`);
      ms = (await device.next('error')).ms;
    }
    await device.next('status', 'Given up');
  });

  test('beats in both directions: a device that has fallen silent is gone, and comes back when it wakes', async (t) => {
    const quick = await Recipe.start(t, 'loans', {
      scopes: SCOPES,
      environment: { BUGLE_SOCKETIO__PING_INTERVAL: '500ms', BUGLE_SOCKETIO__PING_TIMEOUT: '1500ms' },
    });
    const user = 'sleeper';
    const device = quick.device(t, [quick.server.url, quick.token(user, { role: 'user' })], { env });
    await device.next('status', 'Connected');
    for (let beat = 0; beat < 3; beat += 1) await device.next('heartbeat');
    assert.equal((await quick.server.backend.getUser({ user_id: user })).online, true);
    device.signal('SIGSTOP');
    await quick.server.log.find((line) => line.message === 'disconnected' && line['user.id'] === user);
    assert.equal((await quick.server.backend.getUser({ user_id: user })).online, false);
    device.signal('SIGCONT');
    await device.next('status', 'Disconnected');
    await device.next('status', 'Connected');
  });
});
