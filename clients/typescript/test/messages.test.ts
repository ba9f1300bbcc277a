import { expect, onTestFinished, test } from 'vitest';

import { type Client, Conversation, Conversations, type ConversationState } from '../src/index.js';
import { Device, WEBSOCKET } from './harness/device.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

const MESSAGES = { 'messages.enabled': true, 'store.url': 'sqlite:messages.db' };
const serve = () => Server.start(MESSAGES);

function conversation({ messages }: Client, peer: string, options = {}): Conversation {
  const made = new Conversation(messages, peer, options);
  made.start();
  onTestFinished(() => made.stop());
  return made;
}

/** Waits until the state of a store fits. */
function state<State>(store: { state: State; subscribe(listener: () => void): () => void }, fits: (state: State) => boolean): Promise<State> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not within 10 s: ${JSON.stringify(store.state)}`)), 10_000);
    const look = () => {
      if (!fits(store.state)) return;
      clearTimeout(timer);
      end();
      resolve(store.state);
    };
    const end = store.subscribe(look);
    look();
  });
}

const shows = (texts: string[]) => ({ messages }: ConversationState) =>
  JSON.stringify(messages.filter(({ status }) => status === 'sent').map(({ content }) => content)) === JSON.stringify(texts);

test('two users write, type, read and delete', async () => {
  const server = await serve();
  const [buyer, seller] = await Promise.all(['buyer', 'seller'].map((user) => Device.connected({ url: server.url, token: server.token(user) })));
  const [mine, theirs] = [conversation(buyer!.client, 'seller'), conversation(seller!.client, 'buyer')];
  const list = new Conversations(seller!.client.messages);
  list.start();
  onTestFinished(() => list.stop());
  await Promise.all([state(mine, ({ isLoading }) => !isLoading), state(list, ({ isLoading }) => !isLoading)]);

  mine.typing();
  await state(theirs, ({ isTyping }) => isTyping);
  const key = mine.send('Two tickets?', { listingId: 'l-1', transactionId: 'txn-1' });
  await state(theirs, shows(['Two tickets?']));
  await state(theirs, ({ isTyping }) => !isTyping);
  expect(theirs.state.messages).toMatchObject([{ isOwn: false, isRead: false, listingId: 'l-1', transactionId: 'txn-1' }]);
  await state(list, ({ unreadCount, conversations }) => unreadCount === 1 && conversations[0]?.userId === 'buyer');

  await theirs.markRead();
  await state(mine, ({ messages }) => messages[0]!.isRead);
  await state(list, ({ unreadCount }) => unreadCount === 0);
  await mine.remove(key);
  await state(theirs, shows([]));
  await state(list, ({ conversations }) => conversations.length === 0);
  expect([mine.state.error, theirs.state.error, list.state.error]).toEqual([undefined, undefined, undefined]);
});

test('pages, read receipts and deletions of the time without a connection are there after it', async () => {
  const server = await serve();
  const network = await Network.before(server.port);
  const buyer = await Device.connected({ url: network.url, token: server.token('buyer'), socketOptions: WEBSOCKET });
  const seller = await Device.connected({ url: server.url, token: server.token('seller') });
  const theirs = conversation(seller.client, 'buyer');
  const first = theirs.send('1');
  for (const text of ['2', '3', '4']) theirs.send(text);
  await state(theirs, shows(['1', '2', '3', '4']));
  const mine = conversation(buyer.client, 'seller', { pageSize: 2 });
  await state(mine, shows(['3', '4']));
  await mine.loadMore();
  expect(shows(['1', '2', '3', '4'])(mine.state)).toBe(true);
  mine.send('5');
  await state(theirs, shows(['1', '2', '3', '4', '5']));

  await network.cut();
  await buyer.disconnected();
  await theirs.markRead();
  await theirs.remove(first);
  theirs.send('6');
  await state(theirs, shows(['2', '3', '4', '5', '6']));
  await network.restore();
  const { messages } = await state(mine, shows(['2', '3', '4', '5', '6']));
  expect(messages.find(({ content }) => content === '5')!.isRead).toBe(true);
});

test('what is sent while the connection flaps is stored once, in its order', async () => {
  const server = await serve();
  const network = await Network.before(server.port);
  const buyer = await Device.connected({ url: network.url, token: server.token('buyer'), socketOptions: WEBSOCKET });
  const seller = await Device.connected({ url: server.url, token: server.token('seller') });
  const [mine, theirs] = [conversation(buyer.client, 'seller'), conversation(seller.client, 'buyer')];
  const texts = Array.from({ length: 30 }, (_, number) => `${number}`);
  for (const [number, text] of texts.entries()) {
    mine.send(text);
    if (number % 5 !== 4) continue;
    network.drop();
    await buyer.disconnected();
    await buyer.connected();
  }
  await state(mine, shows(texts));
  await state(theirs, shows(texts));
  expect((await buyer.client.messages.conversation('seller')).map(({ content }) => content)).toEqual([...texts].reverse());
});

test('a message to a user who has blocked the sender fails, and is sent when that has ended', async () => {
  const server = await serve();
  const [buyer, seller] = await Promise.all(['buyer', 'seller'].map((user) => Device.connected({ url: server.url, token: server.token(user) })));
  const mine = conversation(buyer!.client, 'seller');
  await seller!.client.messages.block('buyer');
  const key = mine.send('Hello?');
  const { messages } = await state(mine, ({ messages }) => messages[0]?.status === 'failed');
  expect(messages[0]!.error?.code).toBe('forbidden');
  await seller!.client.messages.block('buyer', false);
  mine.retry(key);
  await state(mine, shows(['Hello?']));
});

test('messages beyond the rate are sent when Bugle says so, in their order', async () => {
  const server = await Server.start({ ...MESSAGES, 'messages.conversation_rate': { per_second: 10, burst: 1 } });
  const buyer = await Device.connected({ url: server.url, token: server.token('buyer') });
  const mine = conversation(buyer.client, 'seller');
  const texts = Array.from({ length: 6 }, (_, number) => `${number}`);
  for (const text of texts) mine.send(text);
  await state(mine, shows(texts));
  expect((await buyer.client.messages.conversation('seller')).map(({ content }) => content)).toEqual([...texts].reverse());
});

test('what Bugle does not accept fails with the reason', async () => {
  const server = await serve();
  const buyer = await Device.connected({ url: server.url, token: server.token('buyer') });
  const mine = conversation(buyer.client, 'seller');
  mine.send('');
  mine.send('x'.repeat(4_001));
  const { messages } = await state(mine, ({ messages }) => messages.every(({ status }) => status === 'failed'));
  expect(messages.map(({ error }) => error?.code)).toEqual(['invalid_argument', 'invalid_argument']);
  await expect(buyer.client.messages.conversation('seller', { limit: 0 })).rejects.toMatchObject({ name: 'BugleError', code: 'invalid_argument' });
});

test('without a server the error says that, and without direct messages too', async () => {
  const server = await Server.start({ 'store.url': '' });
  const buyer = await Device.connected({ url: server.url, token: server.token('buyer') });
  const mine = conversation(buyer.client, 'seller');
  expect((await state(mine, ({ error }) => error !== undefined)).error?.code).toBe('http_404');
  const nobody = new Device({ url: 'http://127.0.0.1:9', token: 'none', socketOptions: WEBSOCKET });
  expect((await state(conversation(nobody.client, 'seller'), ({ error }) => error !== undefined)).error?.code).toBe('transport');
});
