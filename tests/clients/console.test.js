import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';

import { Metadata, credentials, loadPackageDefinition } from '@grpc/grpc-js';
import { load } from '@grpc/proto-loader';
import { chromium } from 'playwright-core';

const BUGLE = process.env.BUGLE_BIN ?? new URL('../../target/release/bugle', import.meta.url).pathname;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
/** Where the screenshots go, for people to look at. */
const SHOTS = tmpdir();
const PROTO = new URL('../../proto', import.meta.url).pathname;
const SIZES = [
  { width: 1280, height: 800 },
  { width: 390, height: 844 },
];
/** What Chromium itself writes to the console when an endpoint refuses, as two of them are asked to. */
const REFUSED_ON_PURPOSE = /^Failed to load resource: the server responded with a status of 40[013] /;

let server;
let browser;

before(async () => {
  server = await serve();
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** `bugle serve --dev` on free ports, and what its banner says. */
async function serve() {
  const listen = { BUGLE_CLIENTS__LISTEN: '127.0.0.1:0', BUGLE_GRPC__LISTEN: '127.0.0.1:0', BUGLE_ADMIN__LISTEN: '127.0.0.1:0' };
  const { PATH } = process.env;
  // A second emit is within the window, however slow the browser is.
  const collapse = { BUGLE_COLLAPSE__WINDOW: '8s' };
  const child = spawn(BUGLE, ['serve', '--dev'], { env: { PATH, ...listen, ...collapse }, stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'exit');
  let log = '';
  child.stderr.on('data', (text) => (log += text));
  let banner = '';
  for await (const text of child.stdout.iterator({ destroyOnReturn: false })) {
    banner += text;
    if (banner.includes('EmitToUser')) break;
  }
  assert.match(banner, /EmitToUser/, `bugle did not start:\n${log}`);
  const found = (pattern) => banner.match(pattern)[1];
  return {
    page: found(/console +(http:\S+)/),
    devices: found(/devices +(http:\/\/[^/]+)/),
    grpc: found(/backends +(\S+)/),
    token: found(/\n(ey\S+)\n/),
    key: found(/Bearer ([0-9a-f]+)/),
    log: () => log,
    stop: async () => {
      child.kill('SIGTERM');
      await exited;
    },
  };
}

/** The console in a browser window of its own, where nothing but what is meant to may go wrong or be asked for. */
async function open(context, options = {}) {
  const window = await browser.newContext({ viewport: SIZES[0], ...options });
  context.after(() => window.close());
  const page = await window.newPage();
  const faults = [];
  const hosts = [server.page, server.devices].map((url) => new URL(url).host);
  const asked = (url) => {
    if (!url.startsWith('data:') && !hosts.includes(new URL(url).host)) faults.push(`asked ${url}`);
    if (url.includes(server.token) || url.includes(server.key)) faults.push(`a secret in ${url}`);
  };
  page.on('request', (request) => asked(request.url()));
  page.on('websocket', (socket) => asked(socket.url()));
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => {
    const isMeant = REFUSED_ON_PURPOSE.test(message.text()) && message.location().url.includes('/console/api/');
    if (message.type() === 'error' && !isMeant) faults.push(message.text());
  });
  await page.goto(server.page);
  return { page, faults };
}

async function connect(page) {
  await page.getByLabel('Token', { exact: true }).fill(server.token);
  await page.getByRole('button', { name: 'Connect', exact: true }).click();
  await page.locator('#status[data-state=on]').waitFor();
}

async function useKey(page) {
  await page.getByLabel('API key', { exact: true }).fill(server.key);
  await page.getByRole('button', { name: 'Use', exact: true }).click();
}

async function emit(page, event, payload) {
  const form = page.locator('#emit');
  await form.getByLabel('Event').fill(event);
  await form.getByLabel('Payload').fill(payload);
  await form.getByRole('button', { name: 'Emit' }).click();
}

/** Bytes, which the page itself cannot emit. */
async function emitBinary(user, event, bytes) {
  const definition = await load('bugle/v1/notify.proto', { includeDirs: [PROTO], keepCase: true });
  const { Notify } = loadPackageDefinition(definition).bugle.v1;
  const client = new Notify(server.grpc, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${server.key}`);
  await promisify(client.emitToUser).call(client, { user_id: user, event, binary: bytes }, metadata);
  client.close();
}

const entry = (page, text) => page.locator('#entries li:not([hidden])').filter({ hasText: text });
const visibleEntries = (page) => page.locator('#entries li:not([hidden])').count();

/** What sticks out of the page, or out of the element that holds it. */
function overflowing(page) {
  return page.evaluate(() => {
    const found = document.documentElement.scrollWidth > innerWidth ? ['the page'] : [];
    for (const element of document.querySelectorAll('body *')) {
      const { left, right, width } = element.getBoundingClientRect();
      const isSeen = width > 1 && element.checkVisibility();
      if (isSeen && (left < 0 || right > innerWidth + 0.5)) found.push(element.outerHTML.slice(0, 100));
    }
    return found;
  });
}

/** Pairs of fields, buttons and headings that cover each other. */
function overlapping(page) {
  return page.evaluate(() => {
    const seen = [...document.querySelectorAll('main input, main textarea, main button, main h2, main h3, main dd, main .title')];
    const boxes = seen
      .filter((element) => element.checkVisibility() && !element.closest('#entries, .choice'))
      .map((element) => ({ element, box: element.getBoundingClientRect() }));
    const found = [];
    for (const [index, one] of boxes.entries()) {
      for (const other of boxes.slice(index + 1)) {
        const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
        const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
        if (across > 1 && down > 1) found.push(`${one.element.outerHTML} and ${other.element.outerHTML}`.slice(0, 200));
      }
    }
    return found;
  });
}

for (const viewport of SIZES) {
  for (const colorScheme of ['light', 'dark']) {
    test(`a device and a backend in one page, ${viewport.width} pixels wide, ${colorScheme}`, async (context) => {
      const { page, faults } = await open(context, { viewport, colorScheme });
      const shoot = async (name) => {
        await page.evaluate(() => scrollTo(0, 0));
        await page.screenshot({ path: join(SHOTS, `console-${viewport.width}-${colorScheme}-${name}.png`), fullPage: true });
      };
      await shoot('start');

      await connect(page);
      await entry(page, 'connected').first().waitFor();
      await page.getByText(/^ping [\d.]+ ms$/).waitFor();
      assert.match(await page.locator('#status').innerText(), /Connected · WebSocket/);

      await useKey(page);
      await page.locator('#connections', { hasText: '1' }).waitFor();

      await page.getByLabel('User id').first().fill('42');
      const payload = '{"walletId":"w1","balance":100.50,"id":12345678901234567890}';
      await emit(page, 'WALLET_UPDATE', payload);
      await page.locator('#receipt[data-state=good]').getByText('enqueued').waitFor();
      const arrived = entry(page, 'WALLET_UPDATE');
      await arrived.locator('summary').click();
      const whole = '{\n  "walletId": "w1",\n  "balance": 100.50,\n  "id": 12345678901234567890\n}';
      await arrived.locator('pre', { hasText: whole.split('\n').join(' ') }).waitFor();
      assert.equal(await arrived.locator('pre').textContent(), whole);
      assert.equal(await arrived.locator('.size').innerText(), `${payload.length} B`);

      const send = page.locator('#send');
      await send.getByLabel('Event').fill('PING');
      await send.getByLabel('Argument').fill('{"n":1}');
      await send.getByRole('button', { name: 'Send' }).click();
      await page.locator('#ack').getByText(/^Ack of PING after [\d.]+ ms$/).waitFor();
      assert.match(await page.locator('#ack pre').innerText(), /"unknown_event"/);
      await shoot('receipt');

      await page.getByLabel('Event').last().fill('connect');
      await emit(page, 'connect', '{"a":');
      await page.locator('#receipt[data-state=bad]').getByText('invalid_argument').waitFor();
      const violations = await page.locator('#receipt li').allInnerTexts();
      assert.equal(violations.length, 2);
      assert.match(violations[0], /^event is one of Socket\.IO's own events/);
      assert.match(violations[1], /^json is not JSON/);

      await page.getByRole('searchbox', { name: 'Filter' }).fill('wallet_up');
      assert.equal(await visibleEntries(page), 1);
      await page.getByRole('searchbox', { name: 'Filter' }).fill('');

      const count = await visibleEntries(page);
      await page.getByRole('button', { name: 'Pause' }).click();
      await emit(page, 'while:paused', '');
      await page.getByText('paused, 1 new').waitFor();
      assert.equal(await visibleEntries(page), count);
      await shoot('paused');
      await page.getByRole('button', { name: 'Resume' }).click();
      await entry(page, 'while:paused').waitFor();

      assert.deepEqual(await overflowing(page), []);
      assert.deepEqual(await overlapping(page), []);
      await page.locator('#connect').getByRole('button', { name: 'Disconnect' }).click();
      await page.locator('#status', { hasText: 'Disconnected' }).waitFor();
      await page.locator('#connections', { hasText: '0' }).waitFor();
      await shoot('end');
      assert.deepEqual(faults, []);
    });
  }
}

describe('what a developer meets', () => {
  test('a refused token says why, and a good one then connects', async (context) => {
    const { page, faults } = await open(context);
    await page.getByLabel('Token', { exact: true }).fill('nonsense');
    await page.getByLabel('Token', { exact: true }).press('Enter');
    await page.getByText('Refused: Invalid or expired token').waitFor();
    await connect(page);
    assert.equal(await page.locator('#connect-problem').isVisible(), false);
    assert.deepEqual(faults, []);
  });

  test('a key that nobody has is refused, and asked with no more', async (context) => {
    const { page, faults } = await open(context);
    let polls = 0;
    await page.clock.install();
    await page.reload();
    page.on('request', (request) => (polls += request.url().endsWith('/api/stats')));
    await page.getByLabel('API key', { exact: true }).fill('not-a-key-of-anybody-but-long-enough');
    await page.getByRole('button', { name: 'Use', exact: true }).click();
    await page.getByText('the API key is not known here').waitFor();
    await page.clock.fastForward('01:00');
    assert.equal(polls, 1);
    await useKey(page);
    await page.locator('#users', { hasText: '0' }).waitFor();
    assert.equal(await page.locator('#key-problem').isVisible(), false);
    assert.deepEqual(faults, []);
  });

  test('all of it by keyboard, in the order in which it is read', async (context) => {
    const { page, faults } = await open(context);
    const type = (text) => page.keyboard.type(text);
    const focused = () => page.evaluate(() => document.activeElement.name || document.activeElement.innerText);
    const tabTo = async (name) => {
      for (let steps = 0; steps < 20; steps += 1) {
        if ((await focused()) === name) return;
        await page.keyboard.press('Tab');
      }
      assert.fail(`Tab does not reach ${name}`);
    };
    await tabTo('token');
    await type(server.token);
    await page.keyboard.press('Enter');
    await page.locator('#status[data-state=on]').waitFor();
    await tabTo('argument');
    await page.keyboard.press('Shift+Tab');
    await type('hello');
    await page.keyboard.press('Tab');
    await type('[1, 2]');
    await page.keyboard.press('Control+Enter');
    await page.locator('#ack').getByText('Ack of hello').waitFor();
    await tabTo('key');
    await type(server.key);
    await page.keyboard.press('Enter');
    await page.locator('#users', { hasText: '1' }).waitFor();
    await tabTo('audience');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    await tabTo('event');
    await type('to:everyone');
    await page.keyboard.press('Enter');
    await page.locator('#receipt[data-state=good]').waitFor();
    await entry(page, 'to:everyone').waitFor();
    await tabTo('Clear');
    assert.deepEqual(faults, []);
  });

  test('bytes are shown by their number and their head', async (context) => {
    const { page, faults } = await open(context);
    await connect(page);
    await emitBinary('42', 'picture', Uint8Array.from({ length: 3000 }, (_, index) => index % 256));
    const picture = entry(page, 'picture');
    await picture.getByText('binary, 2.9 KiB: 00 01 02 03').first().waitFor();
    assert.equal(await picture.locator('.size').innerText(), '2.9 KiB');
    assert.deepEqual(faults, []);
  });

  test('options do what they say, and the receipt tells what was held back', async (context) => {
    const { page, faults } = await open(context);
    await connect(page);
    await useKey(page);
    await page.getByLabel('User id').first().fill('42');
    for (const option of ['envelope', 'retain']) await page.getByLabel(option).check();
    await emit(page, 'BALANCE', '1');
    await entry(page, /"event":"BALANCE".*"data":1/).waitFor();
    for (const option of ['envelope', 'retain']) await page.getByLabel(option).uncheck();
    const store = page.getByLabel('store', { exact: true });
    await store.check();
    await emit(page, 'KEPT', '1');
    const stored = page.locator('#receipt .facts div', { has: page.getByText('stored', { exact: true }) });
    await stored.getByText('true').waitFor();
    await store.uncheck();
    await page.locator('#connect').getByRole('button', { name: 'Disconnect' }).click();
    await connect(page);
    await entry(page, /"event":"BALANCE".*"data":1/).nth(1).waitFor();

    await page.getByLabel('Collapse key').fill('price');
    const deferred = page.locator('#receipt .facts div', { has: page.getByText('deferred', { exact: true }) });
    await emit(page, 'PRICE', '100');
    await entry(page, 'PRICE').waitFor();
    await emit(page, 'PRICE', '101');
    await deferred.getByText('true').waitFor();
    await entry(page, 'PRICE').nth(1).waitFor();
    assert.deepEqual(faults, []);
  });

  test('disconnecting a user shows how many connections closed, and the device why', async (context) => {
    const { page, faults } = await open(context);
    await connect(page);
    await useKey(page);
    await page.locator('#disconnect').getByLabel('User id').fill('42');
    await page.locator('#disconnect').getByRole('button').click();
    await page.getByText('1 connection closed').waitFor();
    await entry(page, 'bugle:disconnect').waitFor();
    await page.locator('#status', { hasText: 'Disconnected' }).waitFor();
    assert.deepEqual(faults, []);
  });

  test('a flood leaves the last thousand', async (context) => {
    const { page, faults } = await open(context);
    await connect(page);
    await page.evaluate(
      async ({ key, api }) => {
        const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
        const emit = (n) =>
          fetch(`${api}/emit`, { method: 'POST', headers, body: JSON.stringify({ user_id: '42', event: `n${n}` }) });
        for (let n = 0; n < 1_200; n += 50) {
          await Promise.all(Array.from({ length: 50 }, (_, index) => emit(n + index)));
        }
        await emit('last');
      },
      { key: server.key, api: `${server.page}/api` },
    );
    await entry(page, 'nlast').waitFor();
    assert.equal(await page.locator('#entries li').count(), 1_000);
    assert.match(await page.locator('#shown').innerText(), /^1,000 shown$/);
    assert.deepEqual(faults, []);
  });

  test('secrets are kept only if that is wished, and only for the tab', async (context) => {
    const { page, faults } = await open(context);
    const stored = () => page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]);
    await connect(page);
    await useKey(page);
    assert.deepEqual(await stored(), [0, 0, '']);
    await page.getByLabel('Keep token and API key').check();
    assert.deepEqual(await stored(), [1, 0, '']);
    await page.reload();
    await page.locator('#users', { hasText: /\d/ }).waitFor();
    await page.getByRole('button', { name: 'Connect', exact: true }).click();
    await page.locator('#status[data-state=on]').waitFor();
    await page.getByLabel('Keep token and API key').uncheck();
    assert.deepEqual(await stored(), [0, 0, '']);
    assert.deepEqual(faults, []);
  });
});

test('the log of the server holds no token and no key', () => {
  assert.ok(!server.log().includes(server.token) && !server.log().includes(server.key));
});
