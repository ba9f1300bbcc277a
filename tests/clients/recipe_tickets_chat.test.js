import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

import { freePorts } from './harness/free_ports.js';
import { overflowing, poorContrasts, unnamed, watch } from './harness/looks.js';
import { Network } from './harness/network.js';
import { Recipe } from './harness/recipe.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ARGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
/** Where the screenshots go, for people to look at. */
const SHOTS = process.env.SCREENSHOTS ?? tmpdir();
const WIDE = { width: 1280, height: 800 };
const NARROW = { width: 390, height: 844 };
/** What Chromium itself writes to the console when there is no network, or a request is refused. */
const NETWORK = /^Failed to load resource: |^WebSocket connection to |CORS policy/;

const [port] = await freePorts(1);
const origin = `http://127.0.0.1:${port}`;
const recipe = await Recipe.start({ after }, 'tickets', { scopes: 'presence', environment: { BUGLE_CLIENTS__CORS_ORIGINS: origin } });
/** Between the pages and Bugle: what can be cut. */
const network = await Network.before({ after }, recipe.server.port);
const served = recipe.device({ after }, [network.url, port], { program: 'chat/serve.mjs' });
let browser;

before(async () => {
  assert.deepEqual(await served.next('listening', undefined, 30_000), { listening: origin });
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
});
after(() => browser?.close());

/** The page of a user in a window of its own, where nothing but what is meant to may go wrong. */
async function open(t, user, { viewport = WIDE, link = {}, ...options } = {}) {
  const window = await browser.newContext({ viewport, locale: 'en-GB', ...options });
  t.after(() => window.close());
  const page = await window.newPage();
  const faults = watch(page, { isMeant: (text) => NETWORK.test(text) });
  await page.goto(`${origin}/#${new URLSearchParams({ token: recipe.token(user), ...link })}`);
  if (viewport.width > 720 || !link.to) await page.getByText(`Signed in as ${user}`).waitFor();
  return { page, faults };
}

/** A request over REST as a user. */
async function rest(user, method, path, body) {
  const headers = { authorization: `Bearer ${recipe.token(user)}`, 'content-type': 'application/json' };
  const answer = await fetch(`${recipe.server.url}/api/messages${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.status === 204 ? undefined : answer.json();
}

const post = (user, receiverId, content) => rest(user, 'POST', '', { receiverId, content });
const bubble = (page, text) => page.locator('.bubble', { hasText: text });
const focused = (page, element) => element.and(page.locator(':focus'));
const row = (page, user) => page.locator(`.row[data-user="${user}"]`);

async function write(page, peer, text) {
  const field = page.getByLabel(`Message to ${peer}`);
  await field.fill(text);
  await field.press('Enter');
}

async function assertLooks(page) {
  assert.deepEqual(await overflowing(page), []);
  assert.deepEqual(await poorContrasts(page), []);
  assert.deepEqual(await unnamed(page), []);
}

for (const viewport of [WIDE, NARROW]) {
  for (const colorScheme of ['light', 'dark']) {
    const name = `${viewport.width}-${colorScheme}`;
    test(`two users chat, ${viewport.width} pixels wide, ${colorScheme}`, async (t) => {
      const [buyer, seller] = [`buyer-${name}`, `seller-${name}`];
      const shoot = (page, what) => page.screenshot({ path: join(SHOTS, `chat-${name}-${what}.png`) });
      await post('venue', buyer, 'Doors open at 19:00. Please bring the tickets on paper or on your phone: we scan both.');
      await post(`friend-${name}`, buyer, 'Are you going on Saturday?');
      const options = { viewport, colorScheme };
      const [mine, theirs] = await Promise.all([open(t, buyer, options), open(t, seller, options)]);
      await theirs.page.getByText('No conversations yet').waitFor();
      await shoot(theirs.page, 'empty');
      await row(mine.page, 'venue').getByText('1 unread').waitFor();
      await mine.page.waitForFunction(() => document.title === '(2) Messages · Tickets');
      await shoot(mine.page, 'list');
      await assertLooks(mine.page);

      await mine.page.getByLabel('Write to').fill(seller);
      await mine.page.getByRole('button', { name: 'Begin' }).click();
      await mine.page.getByText(`Say hello to ${seller}`).waitFor();
      await shoot(mine.page, 'begin');
      const field = mine.page.getByLabel(`Message to ${seller}`);
      await focused(mine.page, field).waitFor();
      await write(mine.page, seller, 'Hello! Are both tickets for the concert on Saturday still there?');
      await bubble(mine.page, 'Hello!').getByTitle('Sent').waitFor();

      await row(theirs.page, buyer).getByText('1 unread').waitFor();
      await row(theirs.page, buyer).click();
      await bubble(mine.page, 'Hello!').getByTitle('Read').waitFor();
      await theirs.page.getByLabel(`Message to ${buyer}`).pressSequentially('Yes, ');
      await mine.page.getByRole('status').getByText('typing').waitFor();
      await write(theirs.page, buyer, 'Yes, row 4, seats 11 and 12.\nI can send them as PDF today.');
      await bubble(mine.page, 'row 4').waitFor();
      await mine.page.getByRole('status').getByText('typing').waitFor({ state: 'detached' });
      await write(mine.page, seller, 'Great, I take both.');
      await write(mine.page, seller, 'https://tickets.example/listings/a-long-address-without-any-place-to-break-it-but-anywhere-at-all');
      // Messages of a user go out one after another: the other user's may come between them.
      await bubble(mine.page, 'any-place-to-break').getByTitle(/Sent|Read/).waitFor();
      await write(theirs.page, buyer, 'Thank you!');
      await bubble(mine.page, 'Thank you!').waitFor();
      await theirs.page.getByLabel(`Message to ${buyer}`).pressSequentially('One more thing');
      await mine.page.getByRole('status').getByText('typing').waitFor();
      await shoot(mine.page, 'talk');
      await assertLooks(mine.page);

      await bubble(mine.page, 'Great').hover();
      await bubble(mine.page, 'Great').getByRole('button', { name: 'Delete' }).click();
      for (const { page } of [mine, theirs]) await bubble(page, 'Great').waitFor({ state: 'detached' });
      if (viewport === NARROW) {
        await mine.page.getByRole('button', { name: 'Back to the conversations' }).click();
        await row(mine.page, seller).getByText('Thank you!').waitFor();
        await focused(mine.page, row(mine.page, seller)).waitFor();
        await shoot(mine.page, 'list-after');
      }
      assert.deepEqual([mine.faults, theirs.faults], [[], []]);
    });
  }
}

describe('what goes wrong', () => {
  for (const viewport of [WIDE, NARROW]) {
    test(`messages wait without a connection, and are sent once with one, ${viewport.width} pixels wide`, async (t) => {
      const [buyer, seller] = [`away-${viewport.width}`, `there-${viewport.width}`];
      const { page, faults } = await open(t, buyer, { viewport, link: { to: seller, listing: 'listing-123' } });
      await write(page, seller, 'Before');
      await bubble(page, 'Before').getByTitle('Sent').waitFor();
      await network.cut();
      await page.getByRole('status').getByText('No connection.').waitFor();
      await write(page, seller, 'In the tunnel');
      await bubble(page, 'In the tunnel').getByTitle('Sending').waitFor();
      await page.screenshot({ path: join(SHOTS, `chat-${viewport.width}-away.png`) });
      await assertLooks(page);
      await network.restore();
      await bubble(page, 'In the tunnel').getByTitle('Sent').waitFor();
      await page.getByText('No connection.').waitFor({ state: 'hidden' });
      const there = await rest(seller, 'GET', `/conversation/${buyer}`);
      assert.deepEqual(there.map(({ content, listingId }) => [content, listingId]), [['In the tunnel', null], ['Before', 'listing-123']]);
      assert.deepEqual(faults, []);
    });

    test(`a refused message says why, and can be sent again, ${viewport.width} pixels wide`, async (t) => {
      const [buyer, seller] = [`blocked-${viewport.width}`, `blocker-${viewport.width}`];
      await rest(seller, 'PUT', `/blocks/${buyer}`);
      const { page, faults } = await open(t, buyer, { viewport, link: { to: seller } });
      await write(page, seller, 'Please answer');
      const alert = bubble(page, 'Please answer').getByRole('alert');
      await alert.getByText('does not accept your messages').waitFor();
      await page.screenshot({ path: join(SHOTS, `chat-${viewport.width}-failed.png`) });
      await assertLooks(page);
      await rest(seller, 'DELETE', `/blocks/${buyer}`);
      await alert.getByRole('button', { name: 'Try again' }).click();
      await bubble(page, 'Please answer').getByTitle('Sent').waitFor();
      assert.deepEqual(faults, []);
    });
  }

  test('a token that is no good says so, and leads to the sign-in', async (t) => {
    const window = await browser.newContext({ viewport: NARROW });
    t.after(() => window.close());
    const page = await window.newPage();
    await page.goto(`${origin}/#token=${recipe.token('late', {}, -60)}`);
    await page.getByText('Your login has expired').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.screenshot({ path: join(SHOTS, 'chat-390-sign-in.png') });
    await assertLooks(page);
    await page.getByLabel('Token').fill(recipe.token('back'));
    await page.getByLabel('Token').press('Enter');
    await page.getByText('Signed in as back').waitFor();
    assert.equal(new URL(page.url()).hash, '');
  });

  test('a list that cannot be loaded says so, and is loaded by a button', async (t) => {
    const window = await browser.newContext({ viewport: WIDE });
    t.after(() => window.close());
    const page = await window.newPage();
    const answer = { status: 403, json: { error: { code: 'forbidden', message: 'for the test' } }, headers: { 'access-control-allow-origin': origin } };
    await page.route('**/api/messages/**', (route) => route.fulfill(answer));
    await page.goto(`${origin}/#token=${recipe.token('unlucky')}`);
    await page.getByRole('alert').getByText('could not be loaded').waitFor();
    await page.screenshot({ path: join(SHOTS, 'chat-1280-error.png') });
    await page.unroute('**/api/messages/**');
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByText('No conversations yet').waitFor();
  });
});

test('a long conversation opens at its end, and older messages come in above without a jump', async (t) => {
  const [reader, writer] = ['reader', 'writer'];
  for (let number = 1; number <= 28; number += 1) {
    await post(writer, reader, `Message ${2 * number - 1} of many`);
    await post(reader, writer, `Message ${2 * number} of many`);
  }
  const { page, faults } = await open(t, reader, { viewport: NARROW, link: { to: writer } });
  const box = page.locator('.messages');
  const fromEnd = () => box.evaluate(({ scrollHeight, clientHeight, scrollTop }) => scrollHeight - clientHeight - scrollTop);
  await bubble(page, 'Message 56 of many').waitFor();
  assert.ok((await fromEnd()) < 2);
  await post(writer, reader, 'One more');
  await bubble(page, 'One more').waitFor();
  assert.ok((await fromEnd()) < 2, 'who is at the end stays there');

  assert.equal(await page.getByText('Message 1 of many', { exact: true }).count(), 0);
  await box.evaluate((element) => (element.scrollTop = 0));
  await page.waitForFunction(() => document.querySelector('.messages').scrollTop === 0);
  const before = await fromEnd();
  await page.getByRole('button', { name: 'Older messages' }).click();
  await bubble(page, 'Message 1 of many').waitFor();
  await page.getByRole('button', { name: 'Older messages' }).waitFor({ state: 'detached' });
  assert.ok(Math.abs((await fromEnd()) - before) < 60, 'who reads above stays there');
  assert.equal(await page.locator('.bubble').count(), 57);
  assert.deepEqual(faults, []);
});

test('all of it by keyboard', async (t) => {
  const { page, faults } = await open(t, 'typist');
  const nameOfFocused = () =>
    page.evaluate(() => {
      const { activeElement: element } = document;
      return element.getAttribute('aria-label') ?? element.labels?.[0]?.innerText ?? element.innerText;
    });
  const tabTo = async (name) => {
    for (let steps = 0; steps < 20; steps += 1) {
      if ((await nameOfFocused())?.startsWith(name)) return;
      await page.keyboard.press('Tab');
    }
    assert.fail(`Tab does not reach ${name}`);
  };
  await tabTo('Write to');
  await page.keyboard.type('reader of it');
  await page.keyboard.press('Enter');
  await page.getByLabel('Message to reader of it').waitFor();
  await tabTo('Message to reader of it');
  await page.keyboard.type('Line one');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('Line two');
  await page.keyboard.press('Enter');
  await bubble(page, 'Line two').getByTitle('Sent').waitFor();
  await tabTo('Messages with reader of it');
  await tabTo('Delete');
  await page.keyboard.press('Enter');
  await bubble(page, 'Line two').waitFor({ state: 'detached' });
  assert.deepEqual(faults, []);
});

/** The smallest page on the Vue composables. */
const VUE_PAGE = `
  import { createApp, h, inject, provide } from 'vue';
  import { useBugle, useConversation, useConversations } from './src/vue.js';
  const { url, token, peer } = globalThis.given;
  const Talk = {
    setup() {
      const { isConnected } = inject('bugle');
      const { messages, isLoading, isTyping, send, markRead } = useConversation(peer);
      const { unreadCount } = useConversations();
      const text = ({ content, status, isRead }) => content + ' ' + status + (isRead ? ' read' : '');
      return () => [
        h('p', isConnected.value && !isLoading.value ? 'Live' : 'Not live'),
        h('p', unreadCount.value + ' unread' + (isTyping.value ? ', typing' : '')),
        h('ol', messages.value.map((message) => h('li', { key: message.key }, text(message)))),
        h('button', { onClick: () => send('From Vue') }, 'Send'),
        h('button', { onClick: () => markRead() }, 'Read'),
      ];
    },
  };
  const App = {
    setup() {
      provide('bugle', useBugle({ url, token, messagesPath: '/api/messages', retryDelay: 100 }));
      return () => h(Talk);
    },
  };
  createApp(App).mount('#app');
`;

test('a page with the Vue composables and one with the React hooks write to each other', async (t) => {
  const { page, faults } = await open(t, 'of-react', { link: { to: 'of-vue' } });
  const window = await browser.newContext({ bypassCSP: true });
  t.after(() => window.close());
  const vue = await window.newPage();
  await vue.goto(origin);
  await vue.evaluate((given) => {
    globalThis.given = given;
    document.body.innerHTML = '<div id="app"></div>';
  }, { url: network.url, token: recipe.token('of-vue'), peer: 'of-react' });
  const resolveDir = fileURLToPath(new URL('../../clients/typescript', import.meta.url));
  const { outputFiles } = await build({ stdin: { contents: VUE_PAGE, resolveDir }, bundle: true, write: false, logLevel: 'error' });
  await vue.addScriptTag({ content: outputFiles[0].text });
  const shows = (text) => vue.getByText(text, { exact: true }).waitFor();

  // Typing is told to devices that are connected, and to no others.
  await shows('Live');
  await page.getByLabel('Message to of-vue').pressSequentially('From React');
  await shows('0 unread, typing');
  await page.keyboard.press('Enter');
  await shows('1 unread');
  await vue.getByRole('button', { name: 'Read' }).click();
  await shows('0 unread');
  await bubble(page, 'From React').getByTitle('Read').waitFor();
  await vue.getByRole('button', { name: 'Send' }).click();
  await bubble(page, 'From Vue').waitFor();
  await shows('From Vue sent read');

  await network.cut();
  await page.getByText('No connection.').waitFor();
  await vue.getByRole('button', { name: 'Send' }).click();
  await shows('From Vue sending');
  await network.restore();
  await page.waitForFunction(() => document.querySelectorAll('.bubble').length === 3);
  const there = await rest('of-vue', 'GET', '/conversation/of-react');
  assert.deepEqual(there.map(({ content }) => content), ['From Vue', 'From Vue', 'From React']);
  assert.deepEqual(faults, []);
});
