import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { BugleError, type Conversations } from '../src/index.js';
import { MemoryMessages, settled } from './harness/memory_messages.js';
import { conversation, conversations } from './harness/started.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Each conversation's user, last message and unread count; and the total. */
function shown({ state }: Conversations) {
  const { conversations, unreadCount } = state;
  return [conversations.map(({ userId, lastMessage, unreadCount }) => [userId, lastMessage.content, unreadCount]), unreadCount];
}

function market() {
  const server = new MemoryMessages();
  server.send('ann', 'me', 'a1');
  server.send('ben', 'me', 'b1');
  server.send('me', 'cat', 'c1');
  server.send('ann', 'me', 'a2');
  return { server, me: server.device('me') };
}

describe('the list', () => {
  test('is loaded with what is not read, the newest conversation first', async () => {
    const { me } = market();
    const list = await conversations(me);
    expect(shown(list)).toEqual([[['ann', 'a2', 2], ['cat', 'c1', 0], ['ben', 'b1', 1]], 3]);
    expect(list.state).toMatchObject({ isLoading: false, hasMore: false, error: undefined });
    expect(me.requests).toEqual(['GET /bugle/messages/conversations?limit=50']);
  });

  test('is loaded page by page, with the count of all', async () => {
    const { server, me } = market();
    const list = await conversations(me, { pageSize: 2 });
    expect(shown(list)).toEqual([[['ann', 'a2', 2], ['cat', 'c1', 0]], 3]);
    expect(list.state.hasMore).toBe(true);
    await list.loadMore();
    expect(shown(list)).toEqual([[['ann', 'a2', 2], ['cat', 'c1', 0], ['ben', 'b1', 1]], 3]);
    expect(list.state.hasMore).toBe(false);
    server.send('dan', 'me', 'd1');
    await settled();
    expect(shown(list)).toEqual([[['dan', 'd1', 1], ['ann', 'a2', 2], ['cat', 'c1', 0], ['ben', 'b1', 1]], 4]);
  });

  test('is bounded', async () => {
    const { me } = market();
    const list = await conversations(me, { pageSize: 2, maxConversations: 2 });
    expect(list.state.hasMore).toBe(false);
    await list.loadMore();
    expect(list.state.conversations).toHaveLength(2);
  });

  test('shows why it could not be loaded, and is loaded later', async () => {
    const { me } = market();
    me.refusals = [new BugleError('transport', 'no answer')];
    const list = await conversations(me);
    expect(list.state).toMatchObject({ isLoading: false, error: { code: 'transport' } });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(list.state).toMatchObject({ unreadCount: 3, error: undefined });
  });
});

describe('what changes', () => {
  test('a message moves its conversation to the top, and counts if it is to the user and was not counted', async () => {
    const { server, me } = market();
    const list = await conversations(me);
    const message = server.send('ben', 'me', 'b2');
    me.hand('message:received', message);
    expect(shown(list)).toEqual([[['ben', 'b2', 2], ['ann', 'a2', 2], ['cat', 'c1', 0]], 4]);
    server.send('me', 'cat', 'c2', server.device('me'));
    expect(shown(list)).toEqual([[['cat', 'c2', 0], ['ben', 'b2', 2], ['ann', 'a2', 2]], 4]);
  });

  test("what this device sends and reads shows, though Bugle does not tell it", async () => {
    const { me } = market();
    const [list, ann] = [await conversations(me), await conversation(me, 'ann')];
    ann.send('a3');
    await settled();
    expect(shown(list)).toEqual([[['ann', 'a3', 2], ['cat', 'c1', 0], ['ben', 'b1', 1]], 3]);
    await ann.markRead();
    expect(shown(list)).toEqual([[['ann', 'a3', 0], ['cat', 'c1', 0], ['ben', 'b1', 1]], 1]);
  });

  test('what another device of the user reads is not counted any more', async () => {
    const { server, me } = market();
    const list = await conversations(me);
    server.read('me', 'ann', server.device('me'));
    expect(shown(list)).toEqual([[['ann', 'a2', 0], ['cat', 'c1', 0], ['ben', 'b1', 1]], 1]);
    expect(me.requests).toHaveLength(1);
  });

  test('a receipt of the other user shows at the last message, and changes no count', async () => {
    const { server, me } = market();
    server.send('cat', 'me', 'c2');
    server.send('me', 'cat', 'c3');
    const list = await conversations(me);
    server.read('cat', 'me');
    expect(list.state.conversations[0]).toMatchObject({ userId: 'cat', lastMessage: { content: 'c3', isRead: true }, unreadCount: 1 });
  });

  test('a deletion brings the message before it back, and its conversation down', async () => {
    const { server, me } = market();
    const list = await conversations(me);
    server.delete(server.messages[3]!.id);
    await settled();
    expect(shown(list)).toEqual([[['cat', 'c1', 0], ['ben', 'b1', 1], ['ann', 'a1', 1]], 2]);
  });

  test('what comes while the list is loaded is counted once', async () => {
    const { server, me } = market();
    const list = await conversations(me);
    for (const isInAnswer of [true, false]) {
      let open = () => {};
      const gate = new Promise<void>((resolve) => (open = resolve));
      if (isInAnswer) server.send('ben', 'me', 'b2', me);
      me.gate = gate;
      list.reload();
      if (isInAnswer) me.hand('message:received', server.messages.at(-1));
      else server.send('ben', 'me', 'b3');
      me.gate = undefined;
      open();
      await settled();
    }
    expect(shown(list)).toEqual([[['ben', 'b3', 3], ['ann', 'a2', 2], ['cat', 'c1', 0]], 5]);
  });

  test('after a reconnect, what happened meanwhile shows', async () => {
    const { server, me } = market();
    const list = await conversations(me);
    me.disconnect();
    server.read('me', 'ann');
    server.send('ben', 'me', 'b2');
    server.send('eve', 'me', 'e1');
    me.connect();
    await settled();
    expect(shown(list)).toEqual([[['eve', 'e1', 1], ['ben', 'b2', 2], ['ann', 'a2', 0], ['cat', 'c1', 0]], 3]);
  });

  test('another user finds nothing of the one before', async () => {
    const { me } = market();
    const list = await conversations(me);
    me.disconnect();
    me.connect('nobody');
    await settled();
    expect(shown(list)).toEqual([[], 0]);
  });
});

/** Numbers between 0 and a limit, always the same ones for a seed. */
function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

test.each(Array.from({ length: 40 }, (_, seed) => seed))('devices that flap agree with the server in the end (%i)', async (seed) => {
  const pick = numbers(seed);
  const server = new MemoryMessages();
  const users = ['ann', 'ben', 'cat'];
  const devices = users.flatMap((user) => [server.device(user), server.device(user)]);
  const views = await Promise.all(
    devices.map(async (device) => {
      const peers = users.filter((user) => user !== device.user);
      const talks = await Promise.all(peers.map((peer) => conversation(device, peer)));
      return { device, list: await conversations(device, { pageSize: 1 + pick(3) }), talks };
    }),
  );
  const written: string[] = [];
  for (let step = 0; step < 150; step += 1) {
    const { device, talks } = views[pick(views.length)]!;
    const talk = talks[pick(talks.length)]!;
    const action = pick(10);
    if (action < 4) {
      written.push(`${seed}-${step}`);
      talk.send(`${seed}-${step}`);
    } else if (action === 4) void talk.markRead();
    else if (action === 5) {
      const entry = talk.state.messages.find(({ isOwn, status, content }) => isOwn && status === 'sent' && written.includes(content));
      if (entry && device.state.isConnected && !device.losesAnswers) {
        written.splice(written.indexOf(entry.content), 1);
        void talk.remove(entry.key);
      }
    } else if (action === 6) device.losesAnswers = true;
    else if (device.state.isConnected) device.disconnect();
    else {
      device.losesAnswers = false;
      device.connect();
    }
    if (pick(3) > 0) await settled();
  }
  for (const { device } of views) {
    device.disconnect();
    device.losesAnswers = false;
    await settled();
    device.connect();
  }
  for (let turn = 0; turn < 20; turn += 1) await settled();
  expect(server.messages.map(({ content }) => content).sort()).toEqual([...written].sort());
  for (const { device, list, talks } of views) {
    const { conversations, unreadCount } = list.state;
    expect(conversations).toEqual(server.conversations(device.user).slice(0, conversations.length));
    expect(unreadCount).toBe(server.unreadCount(device.user));
    for (const talk of talks) {
      const there = server.conversation(device.user, talk.userId).reverse();
      expect(talk.state.messages.map(({ id, isRead }) => [id, isRead])).toEqual(there.map(({ id, isRead }) => [id, isRead]));
    }
  }
});
