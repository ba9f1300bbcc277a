import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { BugleError, Conversation, type ConversationOptions } from '../src/index.js';
import { type MemoryDevice, MemoryMessages, settled } from './harness/memory_messages.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A started conversation with this user. */
async function conversation(device: MemoryDevice, peer: string, options: ConversationOptions = {}): Promise<Conversation> {
  const made = new Conversation(device.direct, peer, options);
  made.start();
  onTestFinished(() => made.stop());
  await settled();
  return made;
}

function buyerAndSeller() {
  const server = new MemoryMessages();
  return { server, buyer: server.device('buyer'), seller: server.device('seller') };
}

const contents = ({ state }: Conversation) => state.messages.map(({ content }) => content);
const statuses = ({ state }: Conversation) => state.messages.map(({ status }) => status);

describe('loading', () => {
  test('shows the newest page, the oldest message first, and says who wrote what', async () => {
    const { server, buyer } = buyerAndSeller();
    for (const text of ['1', '2', '3']) server.send('seller', 'buyer', text);
    server.send('buyer', 'seller', '4');
    server.send('stranger', 'buyer', 'not here');
    const shown = await conversation(buyer, 'seller', { pageSize: 3 });
    expect(shown.state.messages.map(({ content, isOwn }) => [content, isOwn])).toEqual([['2', false], ['3', false], ['4', true]]);
    expect(shown.state).toMatchObject({ isLoading: false, hasMore: true, error: undefined });
  });

  test('loads older pages one at a time until there are no more', async () => {
    const { server, buyer } = buyerAndSeller();
    for (let number = 1; number <= 5; number += 1) server.send('seller', 'buyer', `${number}`);
    const shown = await conversation(buyer, 'seller', { pageSize: 2 });
    await Promise.all([shown.loadMore(), shown.loadMore()]);
    expect(contents(shown)).toEqual(['2', '3', '4', '5']);
    await shown.loadMore();
    expect(contents(shown)).toEqual(['1', '2', '3', '4', '5']);
    expect(shown.state.hasMore).toBe(false);
    const { length } = buyer.requests;
    await shown.loadMore();
    expect(buyer.requests).toHaveLength(length);
  });

  test('nothing is asked for before the client has connected, or could not', async () => {
    const { server } = buyerAndSeller();
    server.send('seller', 'buyer', '1');
    const device = server.device('buyer', false);
    const shown = await conversation(device, 'seller');
    expect(device.requests).toEqual([]);
    expect(shown.state.isLoading).toBe(true);
    device.disconnect();
    await settled();
    expect(contents(shown)).toEqual(['1']);
  });

  test('shows why a request has failed, and tries again when that may help', async () => {
    const { server, buyer } = buyerAndSeller();
    server.send('seller', 'buyer', '1');
    buyer.refusals = [new BugleError('unavailable', 'the store is away')];
    const shown = await conversation(buyer, 'seller');
    expect(shown.state).toMatchObject({ isLoading: false, error: { code: 'unavailable' } });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(contents(shown)).toEqual(['1']);
    expect(shown.state.error).toBeUndefined();
  });

  test('a refusal for good is not tried again until the app wishes it', async () => {
    const { server, buyer } = buyerAndSeller();
    server.send('seller', 'buyer', '1');
    buyer.refusals = [new BugleError('forbidden', 'no')];
    const shown = await conversation(buyer, 'seller');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(shown.state.error?.code).toBe('forbidden');
    shown.reload();
    await settled();
    expect(contents(shown)).toEqual(['1']);
  });

  test('goes on after the message has been deleted that a page was to begin at', async () => {
    const { server, buyer } = buyerAndSeller();
    for (const text of ['1', '2', '3', '4']) server.send('seller', 'buyer', text);
    const shown = await conversation(buyer, 'seller', { pageSize: 2 });
    buyer.disconnect();
    server.delete(server.messages[2]!.id);
    await shown.loadMore();
    await settled();
    expect(contents(shown)).toEqual(['2', '4']);
    await shown.loadMore();
    expect(contents(shown)).toEqual(['1', '2', '4']);
  });
});

describe('sending', () => {
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
});

describe('what others do', () => {
  test('messages of both users, also from other devices, come once and in the order of their times', async () => {
    const { server, buyer } = buyerAndSeller();
    const shown = await conversation(buyer, 'seller');
    const first = server.send('seller', 'buyer', '1');
    server.send('buyer', 'seller', '2', server.device('buyer'));
    buyer.hand('message:received', first);
    expect(contents(shown)).toEqual(['1', '2']);
  });

  test('read receipts show, and stay though an answer is older', async () => {
    const { server, buyer, seller } = buyerAndSeller();
    const shown = await conversation(buyer, 'seller');
    shown.send('1');
    await settled();
    let open = () => {};
    buyer.gate = new Promise<void>((resolve) => (open = resolve));
    shown.reload();
    server.read('seller', 'buyer', seller);
    open();
    await settled();
    expect(shown.state.messages).toMatchObject([{ isRead: true }]);
  });

  test('a deleted message goes, and an older answer does not bring it back', async () => {
    const { server, buyer } = buyerAndSeller();
    const { id } = server.send('seller', 'buyer', '1');
    const shown = await conversation(buyer, 'seller');
    let open = () => {};
    buyer.gate = new Promise<void>((resolve) => (open = resolve));
    shown.reload();
    server.delete(id);
    open();
    await settled();
    expect(shown.state.messages).toEqual([]);
  });

  test('after a reconnect, what happened meanwhile to all that was loaded shows', async () => {
    const { server, buyer } = buyerAndSeller();
    for (let number = 1; number <= 6; number += 1) server.send('buyer', 'seller', `${number}`);
    const shown = await conversation(buyer, 'seller', { pageSize: 2 });
    await shown.loadMore();
    buyer.disconnect();
    server.delete(server.messages[3]!.id);
    server.read('seller', 'buyer');
    for (const text of ['7', '8', '9']) server.send('seller', 'buyer', text);
    buyer.connect();
    await settled();
    expect(shown.state.messages.map(({ content, isRead }) => [content, isRead])).toEqual([
      ['3', true], ['5', true], ['6', true], ['7', false], ['8', false], ['9', false],
    ]);
  });

  test('the other user types until that ends, or is not heard of for long, or sends, or the connection is lost', async () => {
    const { server, buyer, seller } = buyerAndSeller();
    const shown = await conversation(buyer, 'seller');
    const start = () => server.tell('buyer', 'typing:start', { userId: 'seller' });
    server.tell('buyer', 'typing:start', { userId: 'stranger' });
    expect(shown.state.isTyping).toBe(false);
    start();
    expect(shown.state.isTyping).toBe(true);
    server.tell('buyer', 'typing:stop', { userId: 'seller' });
    expect(shown.state.isTyping).toBe(false);
    start();
    vi.advanceTimersByTime(7_000);
    expect(shown.state.isTyping).toBe(false);
    start();
    server.send('seller', 'buyer', '1', seller);
    expect(shown.state.isTyping).toBe(false);
    start();
    buyer.disconnect();
    expect(shown.state.isTyping).toBe(false);
  });
});

describe('what this user does', () => {
  test('typing is told now and then, and ends with the message', async () => {
    const { buyer } = buyerAndSeller();
    const shown = await conversation(buyer, 'seller');
    for (let key = 0; key < 30; key += 1) {
      shown.typing();
      vi.advanceTimersByTime(100);
    }
    shown.send('1');
    await settled();
    const told = buyer.sent.map(([event, payload]) => (event.startsWith('typing') ? [event, payload] : event));
    expect(told).toEqual([['typing:start', 'seller'], ['typing:start', 'seller'], ['typing:stop', 'seller'], 'message:send']);
  });

  test('marking as read is one event, and none where all is read', async () => {
    const { server, buyer, seller } = buyerAndSeller();
    server.send('seller', 'buyer', '1');
    server.send('seller', 'buyer', '2');
    const [mine, theirs] = [await conversation(buyer, 'seller'), await conversation(seller, 'buyer')];
    await Promise.all([mine.markRead(), mine.markRead()]);
    await mine.markRead();
    expect(buyer.sent).toEqual([['message:read', { userId: 'seller' }]]);
    for (const { state } of [mine, theirs]) expect(state.messages.map(({ isRead }) => isRead)).toEqual([true, true]);
    await theirs.markRead();
    expect(seller.sent).toEqual([]);
  });

  test('marking as read without a connection is done on the next one', async () => {
    const { server, buyer } = buyerAndSeller();
    server.send('seller', 'buyer', '1');
    const shown = await conversation(buyer, 'seller');
    buyer.disconnect();
    await shown.markRead();
    expect(server.unreadCount('buyer')).toBe(1);
    buyer.connect();
    await settled();
    expect(server.unreadCount('buyer')).toBe(0);
    expect(shown.state.messages).toMatchObject([{ isRead: true }]);
  });

  test('a refusal to mark as read shows, until it is accepted', async () => {
    const { server, buyer } = buyerAndSeller();
    server.send('seller', 'buyer', '1');
    const shown = await conversation(buyer, 'seller');
    buyer.refusals = [new BugleError('rate', 'too fast')];
    await shown.markRead();
    expect(shown.state.error?.code).toBe('rate');
    expect(shown.state.messages).toMatchObject([{ isRead: false }]);
    await shown.markRead();
    expect(shown.state.error).toBeUndefined();
  });
});

describe('memory', () => {
  test('the oldest messages are dropped beyond the limit, and not loaded', async () => {
    const { server, buyer } = buyerAndSeller();
    const shown = await conversation(buyer, 'seller', { pageSize: 4, maxMessages: 5 });
    for (let number = 1; number <= 8; number += 1) server.send('seller', 'buyer', `${number}`);
    expect(contents(shown)).toEqual(['4', '5', '6', '7', '8']);
    expect(shown.state.hasMore).toBe(false);
    buyer.disconnect();
    buyer.connect();
    await settled();
    expect(contents(shown)).toEqual(['4', '5', '6', '7', '8']);
  });

  test('a message that comes late, from before what is loaded, leaves no gap', async () => {
    const { server, buyer } = buyerAndSeller();
    const late = server.send('seller', 'buyer', '1');
    for (const text of ['2', '3', '4']) server.send('seller', 'buyer', text);
    const shown = await conversation(buyer, 'seller', { pageSize: 2 });
    buyer.hand('message:received', late);
    expect(contents(shown)).toEqual(['3', '4']);
    await shown.loadMore();
    expect(contents(shown)).toEqual(['1', '2', '3', '4']);
  });

  test('another user finds nothing of the one before', async () => {
    const { server, buyer } = buyerAndSeller();
    server.send('seller', 'buyer', '1');
    const shown = await conversation(buyer, 'seller');
    buyer.disconnect();
    shown.send('never sent');
    buyer.connect('another user');
    await settled();
    expect(shown.state.messages).toEqual([]);
    expect(server.messages).toHaveLength(1);
  });
});
