import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Device } from './harness/device.js';
import { Network } from './harness/network.js';
import { Recipe } from './harness/recipe.js';
import { Caller, heardSoFar } from './harness/recipe_calls.js';

const SCOPES = 'emit:room:listing:*,emit:room:transaction:*,presence,rooms';
const REQUIRED = 'Authentication token required';
const INVALID = 'Invalid or expired token';
const LISTING = 'listing:updated';
const PRICE = 'listing:price_changed';
const TRANSACTION = 'transaction:updated';

/** How long a token is good that expires while somebody watches: as long as a device may take to connect. */
const SHORT = 10_000;

const recipe = await Recipe.start({ after }, 'tickets', {
  scopes: SCOPES,
  environment: { BUGLE_AUTH__JWT__LEEWAY: '0s' },
});
const { server } = recipe;
const backend = Caller.start({ after }, recipe, 'backend.py');

/** The app on a device of this user, connected. Its welcome is at `connected`. */
async function connect(t, user, { claims, url = server.url, expiresIn } = {}) {
  const device = recipe.device(t, [url, recipe.token(user, claims, expiresIn)]);
  const { payload } = await device.next('event', 'connected');
  [device.welcome] = payload;
  return device;
}

/** Sends an event as the app does. It was handled when an event after it was. */
async function send(device, event, argument) {
  device.tell({ emit: [event, argument] });
  await ask(device, 'unsubscribe:listing', 'none');
}

/** The answer to an event. */
async function ask(device, ...event) {
  device.tell({ ask: event });
  const { asked, answer } = await device.next('answer');
  assert.deepEqual(asked, event);
  return answer;
}

async function refusalOf(device, ...event) {
  const { error } = await ask(device, ...event);
  return error?.code;
}

const heard = (user, device) => heardSoFar(recipe, user, device);
const refused = (reason) => recipe.metric('bugle_client_events_refused_total', { reason });

describe('connecting', { concurrency: true }, () => {
  test('the device is told that it is connected, by WebSocket first', async (t) => {
    const user = 'newcomer';
    const device = recipe.device(t, [server.url, recipe.token(user)]);
    assert.deepEqual(await device.next('connected'), { connected: 'websocket' });
    const [text, { rooms, ...welcome }] = (await device.next('said')).said;
    const [connectionId] = await backend.ask('getUserSockets', user);
    assert.deepEqual([text, rooms.sort(), welcome], ['Connected:', ['everyone', `user:${user}`], { userId: user, connectionId }]);
  });

  test('no token, a wrong one and an expired one are refused', async (t) => {
    const cases = [['', REQUIRED], ['nonsense', INVALID], [recipe.token('late', {}, -60), INVALID]];
    for (const [token, message] of cases) {
      const device = recipe.device(t, [server.url, token]);
      assert.deepEqual(await device.lines.next(), { said: ['Connection error:', message] });
    }
  });

  test('a token is verified on connection: the device stays when it expires', async (t) => {
    const device = await connect(t, 'stayer', { expiresIn: SHORT / 1_000 });
    await device.next('said');
    await device.lines.stayEmpty(SHORT + 500);
    assert.deepEqual(await ask(device, 'subscribe:listing', 'l-0'), { ok: true });
  });

  test('after a loss of the network the device comes back by itself, and subscribes again', async (t) => {
    const network = await Network.before(t, server.port);
    const user = 'traveller';
    const device = await connect(t, user, { url: network.url });
    await send(device, 'subscribe:listing', 'on the way');
    await network.cut();
    await device.next('disconnected');
    await network.restore();
    await device.next('event', 'connected');
    assert.equal((await backend.ask('emitListingUpdated', 'on the way', {})).matched, 0);
    await send(device, 'subscribe:listing', 'on the way');
    assert.equal((await backend.ask('emitListingUpdated', 'on the way', {})).enqueued, 1);
    assert.deepEqual(await device.next('shown'), { shown: 'listing', value: {} });
  });
});

describe('listings', () => {
  const sold = { listingId: 'l-1', status: 'sold' };
  const fewer = { listingId: 'l-1', quantity: 2 };
  const cheaper = { listingId: 'l-1', oldPrice: '80.00', newPrice: '75.50' };

  test('their subscribers are told of status, quantity and price, and nobody else is', async (t) => {
    const [subscriber, elsewhere, nowhere] = await Promise.all(['s-1', 's-2', 's-3'].map((user) => connect(t, user)));
    await send(subscriber, 'subscribe:listing', 'l-1');
    await send(elsewhere, 'subscribe:listing', 'l-2');
    const one = { matched: 1, enqueued: 1, dropped: 0 };
    assert.deepEqual(await backend.askBy('Notify/EmitToRoom', 'emitListingUpdated', 'l-1', sold), one);
    assert.deepEqual(await backend.askBy('Notify/EmitToRoom', 'emitListingUpdated', 'l-1', fewer), one);
    assert.deepEqual(await backend.askBy('Notify/EmitToRoom', 'emitListingPriceChanged', 'l-1', cheaper), one);
    assert.deepEqual(await heard('s-1', subscriber), [[LISTING, sold], [LISTING, fewer], [PRICE, cheaper]]);
    assert.deepEqual(await heard('s-2', elsewhere), []);
    assert.deepEqual(await heard('s-3', nowhere), []);
  });

  test('the app shows what it is told', async (t) => {
    const device = await connect(t, 'onlooker');
    await send(device, 'subscribe:listing', 'l-3');
    await backend.ask('emitListingUpdated', 'l-3', sold);
    assert.deepEqual(await device.next('shown'), { shown: 'listing', value: sold });
    await backend.ask('emitListingPriceChanged', 'l-3', cheaper);
    assert.deepEqual(await device.next('said'), { said: ['Price changed:', cheaper] });
  });

  test('who unsubscribes is not told any more, and stays with the others', async (t) => {
    const device = await connect(t, 'leaver');
    await send(device, 'subscribe:listing', 'l-4');
    await send(device, 'subscribe:listing', 'l-5');
    await send(device, 'unsubscribe:listing', 'l-4');
    assert.equal((await backend.ask('emitListingUpdated', 'l-4', sold)).matched, 0);
    assert.equal((await backend.ask('emitListingUpdated', 'l-5', sold)).matched, 1);
    assert.deepEqual(await heard('leaver', device), [[LISTING, sold]]);
  });

  test('an acknowledgement tells what became of a subscription, if it is asked for', async (t) => {
    const device = await connect(t, 'careful');
    assert.deepEqual(await ask(device, 'subscribe:listing', 'l-6'), { ok: true });
    assert.deepEqual(await ask(device, 'subscribe:listing', 6), { ok: true });
    const wrong = [[], [''], ['a:b'], ['*'], ['x'.repeat(257)], ['a\nb'], [{ id: 'l-6' }], [1.5], [null], [true]];
    for (const args of wrong) {
      const { error, ...rest } = await ask(device, 'subscribe:listing', ...args);
      assert.deepEqual([error?.code, typeof error?.message, rest], ['invalid_argument', 'string', {}], JSON.stringify(args));
    }
    const [{ rooms }] = (await server.backend.getUser({ user_id: 'careful' })).connections;
    assert.deepEqual(rooms, ['everyone', 'listing:6', 'listing:l-6', 'user:careful']);
  });
});

describe('transactions', () => {
  const paid = { transactionId: 't-1', status: 'payment_confirmed' };
  const reached = async (transaction) => (await backend.ask('emitTransactionUpdated', transaction, paid)).matched;

  test('those whose token names one may subscribe to it, and to no other', async (t) => {
    const device = await connect(t, 'buyer', { claims: { rooms: ['transaction:t-1'] } });
    await send(device, 'subscribe:transaction', 't-1');
    await send(device, 'subscribe:transaction', 't-2');
    const one = { matched: 1, enqueued: 1, dropped: 0 };
    assert.deepEqual(await backend.askBy('Notify/EmitToRoom', 'emitTransactionUpdated', 't-1', paid), one);
    assert.equal(await reached('t-2'), 0);
    assert.deepEqual(await device.next('shown'), { shown: 'transaction', value: paid });
    assert.equal(await refusalOf(device, 'subscribe:transaction', 't-2'), 'forbidden');
  });

  test('a token with a pattern covers the transactions that fit', async (t) => {
    const device = await connect(t, 'agent', { claims: { rooms: 'transaction:shop-*' } });
    assert.deepEqual(await ask(device, 'subscribe:transaction', 'shop-7'), { ok: true });
    assert.equal(await refusalOf(device, 'subscribe:transaction', 'other-7'), 'forbidden');
  });

  test('who was not allowed is refused, logged and counted, and is told nothing', async (t) => {
    const device = await connect(t, 'stranger');
    const before = await refused('forbidden');
    server.log.drain();
    await send(device, 'subscribe:transaction', 't-3');
    const line = await server.log.find(({ message }) => message === 'refused a client event');
    assert.deepEqual([line['user.id'], line['refusal.reason']], ['stranger', 'forbidden']);
    assert.equal(await refused('forbidden'), before + 1);
    assert.equal(await reached('t-3'), 0);
    assert.deepEqual(await heard('stranger', device), []);
  });

  test('a backend allows a user who is connected, and that outlives the connection', async (t) => {
    const user = 'seller';
    const first = await connect(t, user);
    assert.equal(await refusalOf(first, 'subscribe:transaction', 't-4'), 'forbidden');
    await backend.askBy('Rooms/AllowRoom', 'allowTransaction', user, 't-4');
    assert.deepEqual(await ask(first, 'subscribe:transaction', 't-4'), { ok: true });
    await first.stop();
    const second = await connect(t, user);
    assert.equal(await reached('t-4'), 0, 'a right to join joins nobody');
    assert.deepEqual(await ask(second, 'subscribe:transaction', 't-4'), { ok: true });
    assert.equal(await reached('t-4'), 1);
    assert.equal(await refusalOf(await connect(t, 'not the seller'), 'subscribe:transaction', 't-4'), 'forbidden');
  });

  test('a backend that takes the right back takes the device out', async (t) => {
    const user = 'expelled';
    await backend.ask('allowTransaction', user, 't-5');
    const device = await connect(t, user);
    assert.deepEqual(await ask(device, 'subscribe:transaction', 't-5'), { ok: true });
    await backend.askBy('Rooms/ForbidRoom', 'forbidTransaction', user, 't-5');
    assert.equal(await reached('t-5'), 0);
    assert.equal(await refusalOf(device, 'subscribe:transaction', 't-5'), 'forbidden');
  });
});

describe('typing', () => {
  test('is told to every device of the named receiver as { userId }, and to nobody else', async (t) => {
    const [sender, other, phone, tablet, third] = await Promise.all(
      ['writer', 'writer', 'reader', 'reader', 'eavesdropper'].map((user) => connect(t, user)),
    );
    await send(sender, 'typing:start', 'reader');
    assert.deepEqual(await phone.next('said'), { said: ['Connected:', phone.welcome] });
    assert.deepEqual(await phone.next('said'), { said: ['writer is typing...'] });
    await send(sender, 'typing:stop', 'reader');
    assert.deepEqual(await heard('reader', phone), [['typing:stop', { userId: 'writer' }]]);
    assert.deepEqual(await heard('reader', tablet), [
      ['typing:start', { userId: 'writer' }],
      ['typing:stop', { userId: 'writer' }],
    ]);
    for (const [user, device] of [['writer', sender], ['writer', other], ['eavesdropper', third]]) {
      assert.deepEqual(await heard(user, device), [], user);
    }
  });

  test('needs a receiver, and takes no word of the sender for who that is', async (t) => {
    const sender = await connect(t, 'liar');
    for (const args of [[], [''], [{}], [{ userId: 'victim' }], [['victim']], [null]]) {
      assert.equal(await refusalOf(sender, 'typing:start', ...args), 'invalid_argument', JSON.stringify(args));
    }
    const receiver = await connect(t, 'victim');
    assert.deepEqual(await ask(sender, 'typing:start', 'victim', { userId: 'someone else' }), { ok: true });
    assert.deepEqual(await heard('victim', receiver), [['typing:start', { userId: 'liar' }]]);
  });
});

test('events that the configuration does not name are refused and counted', async (t) => {
  const device = await connect(t, 'inventive');
  const events = ['message:forward', 'message:received', LISTING, TRANSACTION, 'unsubscribe:transaction', 'user:subscribe'];
  const before = await refused('unknown_event');
  for (const event of events) assert.equal(await refusalOf(device, event, 'l-1'), 'unknown_event', event);
  assert.equal(await refused('unknown_event'), before + events.length);
});

describe('who is online', () => {
  test('the count of users, whether one is online and their sockets are one call each', async (t) => {
    const user = 'collector';
    const before = await backend.askBy('Presence/GetStats', 'getOnlineUsersCount');
    assert.equal(await backend.askBy('Presence/GetUser', 'isUserOnline', user), false);
    assert.deepEqual(await backend.askBy('Presence/GetUser', 'getUserSockets', user), []);
    const devices = [await connect(t, user), await connect(t, user)];
    assert.equal(await backend.ask('getOnlineUsersCount'), before + 1);
    assert.equal(await backend.ask('isUserOnline', user), true);
    const ids = devices.map(({ welcome }) => welcome.connectionId).sort();
    assert.deepEqual(await backend.ask('getUserSockets', user), ids);

    server.log.drain();
    for (const device of devices) await device.stop();
    for (const _ of devices) await server.log.find((line) => line.message === 'disconnected' && line['user.id'] === user);
    assert.equal(await backend.ask('getOnlineUsersCount'), before);
    assert.equal(await backend.ask('isUserOnline', user), false);
    assert.deepEqual(await backend.ask('getUserSockets', user), []);
  });

  test('each device of a user subscribes for itself', async (t) => {
    const user = 'many devices';
    const [phone, tablet] = [await connect(t, user), await connect(t, user)];
    await send(phone, 'subscribe:listing', 'l-7');
    assert.equal((await backend.ask('emitListingUpdated', 'l-7', {})).matched, 1);
    await send(tablet, 'subscribe:listing', 'l-7');
    assert.equal((await backend.ask('emitListingUpdated', 'l-7', {})).matched, 2);
  });
});

test('a call from the command line prints its answer, or says why it was refused', async () => {
  const call = async (env) => {
    const { code, stdout } = await recipe.call('backend.py', ['emitListingUpdated', 'l-8', '{"status":"sold"}'], { env });
    return [code, JSON.parse(stdout)];
  };
  const made = { call: 'emitListingUpdated' };
  assert.deepEqual(await call(), [0, { ...made, answer: { matched: 0, enqueued: 0, dropped: 0 } }]);
  const [code, { message, ...refusal }] = await call({ BUGLE_API_KEY: 'x'.repeat(32) });
  assert.deepEqual([code, refusal, typeof message], [1, { ...made, refused: 'UNAUTHENTICATED' }, 'string']);
});

describe('a device that sends too much', () => {
  const BURST = 30;
  const flood = (t) => Device.connect(t, server.url, { token: recipe.token(`flooder ${t.name}`) });
  const subscribe = (device, count) =>
    Promise.all(Array.from({ length: count }, (_, id) => device.ask('subscribe:listing', id)));

  test('is refused by the name of the limit, and told when to try again', async (t) => {
    const device = await flood(t);
    const answers = await subscribe(device, BURST + 20);
    assert.deepEqual(answers.slice(0, BURST), Array(BURST).fill({ ok: true }));
    const { error } = answers.find((answer) => answer.error);
    assert.equal(error.code, 'rate');
    assert.match(error.message, /limits\.client_events_per_connection/);
    assert.ok(error.retryAfterMs > 0 && error.retryAfterMs <= 1_000, JSON.stringify(error));
  });

  test('is refused when it is with the other devices of its user that it does', async (t) => {
    const devices = await Promise.all([flood(t), flood(t), flood(t)]);
    const answers = (await Promise.all(devices.map((device) => subscribe(device, BURST)))).flat();
    const { error } = answers.find((answer) => answer.error);
    assert.match(error.message, /limits\.client_events_per_user/);
  });

  test('is closed when it goes on all the same', async (t) => {
    const device = await flood(t);
    for (let id = 0; id < 10 * BURST; id += 1) device.socket.emit('typing:start', 'nobody');
    const [{ code, retry }] = await device.heard('bugle:disconnect').next();
    assert.deepEqual([code, retry], ['rate', true]);
    assert.match(await device.disconnects.next(), /^transport/);
  });
});
