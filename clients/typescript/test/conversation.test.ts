import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { BugleError } from '../src/index.js';
import { settled } from './harness/memory_messages.js';
import { buyerAndSeller, contents, conversation } from './harness/started.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

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

  test('what comes before the first load has succeeded leaves no gap', async () => {
    const { server, buyer } = buyerAndSeller();
    for (const text of ['1', '2', '3']) server.send('seller', 'buyer', text);
    buyer.refusals = [new BugleError('transport', 'no answer')];
    const shown = await conversation(buyer, 'seller', { pageSize: 2 });
    buyer.hand('message:received', server.messages[0]);
    server.send('seller', 'buyer', '4');
    await vi.advanceTimersByTimeAsync(1_000);
    expect(contents(shown)).toEqual(['3', '4']);
    expect(shown.state.hasMore).toBe(true);
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
