import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { BugleError } from '../src/index.js';
import { settled } from './harness/memory_messages.js';
import { buyerAndSeller, contents, conversation, statuses } from './harness/started.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('shows a message at once, and under the same key when it is confirmed', async () => {
  const { buyer, seller } = buyerAndSeller();
  const [mine, theirs] = [await conversation(buyer, 'seller'), await conversation(seller, 'buyer')];
  const key = mine.send('Hello!', { transactionId: 'txn-1', listingId: 'l-1' });
  const common = { key, content: 'Hello!', isOwn: true, transactionId: 'txn-1', listingId: 'l-1' };
  expect(mine.state.messages).toMatchObject([{ ...common, id: undefined, status: 'sending' }]);
  await settled();
  expect(mine.state.messages).toMatchObject([{ ...common, id: expect.any(String), status: 'sent', isRead: false }]);
  expect(theirs.state.messages).toMatchObject([{ content: 'Hello!', isOwn: false, transactionId: 'txn-1' }]);
  expect(buyer.sent[0]).toEqual(['message:send', expect.objectContaining({ clientMessageId: key, receiverId: 'seller' })]);
});

test('without a connection messages wait, and then go out in their order', async () => {
  const { server, buyer } = buyerAndSeller();
  const shown = await conversation(buyer, 'seller');
  buyer.disconnect();
  for (const text of ['1', '2', '3']) shown.send(text);
  await settled();
  expect(statuses(shown)).toEqual(['sending', 'sending', 'sending']);
  buyer.connect();
  await settled();
  expect(statuses(shown)).toEqual(['sent', 'sent', 'sent']);
  expect(server.messages.map(({ content }) => content)).toEqual(['1', '2', '3']);
});

test('a message whose answer was lost is sent again under the same key: it is there once, and shown once all the time', async () => {
  const { server, buyer } = buyerAndSeller();
  const shown = await conversation(buyer, 'seller');
  const seen: number[] = [];
  shown.subscribe(() => seen.push(shown.state.messages.length));
  buyer.losesAnswers = true;
  const key = shown.send('once');
  await settled();
  buyer.disconnect();
  await settled();
  expect(statuses(shown)).toEqual(['sending']);
  buyer.losesAnswers = false;
  buyer.connect();
  await settled();
  expect(shown.state.messages).toMatchObject([{ key, status: 'sent' }]);
  expect(server.messages).toHaveLength(1);
  expect(new Set(seen)).toEqual(new Set([1]));
  const keys = buyer.sent.map(([, payload]) => (payload as { clientMessageId: string }).clientMessageId);
  expect(keys).toEqual([key, key]);
});

test('a message whose answer was lost, and that another device has deleted since, is gone', async () => {
  const { server, buyer } = buyerAndSeller();
  const shown = await conversation(buyer, 'seller');
  buyer.losesAnswers = true;
  shown.send('a mistake');
  await settled();
  buyer.disconnect();
  server.delete(server.messages[0]!.id);
  buyer.losesAnswers = false;
  buyer.connect();
  await settled();
  expect([shown.state.messages, server.messages]).toEqual([[], []]);
});

test('a message that Bugle refuses fails with the reason, does not hold up the next one, and can be sent again', async () => {
  const { buyer } = buyerAndSeller();
  const shown = await conversation(buyer, 'seller');
  buyer.refusals = [new BugleError('forbidden', 'you are blocked')];
  const key = shown.send('1');
  shown.send('2');
  await settled();
  expect(shown.state.messages).toMatchObject([{ content: '2', status: 'sent' }, { key, status: 'failed', error: { code: 'forbidden' } }]);
  buyer.disconnect();
  buyer.connect();
  await settled();
  expect(statuses(shown)).toEqual(['sent', 'failed']);
  shown.retry(key);
  await settled();
  expect(statuses(shown)).toEqual(['sent', 'sent']);
});

test('a message that has failed for a reason that may be over is sent again on the next connection', async () => {
  const { buyer } = buyerAndSeller();
  const shown = await conversation(buyer, 'seller');
  buyer.refusals = [new BugleError('unavailable', 'the store is away')];
  shown.send('1');
  await settled();
  expect(statuses(shown)).toEqual(['failed']);
  buyer.disconnect();
  buyer.connect();
  await settled();
  expect(statuses(shown)).toEqual(['sent']);
});

test('a message beyond a rate is sent again when Bugle says so, and the next ones wait for it', async () => {
  const { server, buyer } = buyerAndSeller();
  const shown = await conversation(buyer, 'seller');
  buyer.refusals = [new BugleError('rate', 'too fast', { retryAfter: 300 })];
  shown.send('1');
  shown.send('2');
  await vi.advanceTimersByTimeAsync(299);
  expect(statuses(shown)).toEqual(['sending', 'sending']);
  await vi.advanceTimersByTimeAsync(1);
  expect(server.messages.map(({ content }) => content)).toEqual(['1', '2']);
});

test('messages outlive the view, and wait there for another one', async () => {
  const { server, buyer } = buyerAndSeller();
  const first = await conversation(buyer, 'seller');
  buyer.disconnect();
  first.send('1');
  first.stop();
  const second = await conversation(buyer, 'seller');
  expect(statuses(second)).toEqual(['sending']);
  buyer.connect();
  await settled();
  expect(statuses(second)).toEqual(['sent']);
  expect(server.messages).toHaveLength(1);
});

test('a message that was not sent can be taken away, and one that was is deleted for both', async () => {
  const { server, buyer, seller } = buyerAndSeller();
  const [mine, theirs] = [await conversation(buyer, 'seller'), await conversation(seller, 'buyer')];
  const sent = mine.send('1');
  await settled();
  buyer.disconnect();
  await mine.remove(mine.send('2'));
  buyer.connect();
  await settled();
  expect([contents(mine), contents(theirs)]).toEqual([['1'], ['1']]);
  await mine.remove(sent);
  expect([contents(mine), contents(theirs), server.messages]).toEqual([[], [], []]);
});

test('when 1,000 messages wait, another one is refused', async () => {
  const { buyer } = buyerAndSeller();
  const shown = await conversation(buyer, 'seller');
  buyer.disconnect();
  for (let number = 0; number < 1_000; number += 1) shown.send('x');
  expect(() => shown.send('one more')).toThrow(expect.objectContaining({ code: 'queue_full' }));
});
