import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { ask, assertMessage, heard, Market } from './harness/market.js';

const RECEIVED = 'message:received';

for (const nodes of [1, 3]) {
  describe(`messages between devices, on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`, async () => {
    const market = await Market.start(nodes);
    const connect = (t, ...users) => market.connectAll(t, ...users);
    const send = (device, receiverId, message, more = {}) => ask(device, 'message:send', { receiverId, message, ...more });

    test('a message reaches all devices of both users but the one that sent it, and the app shows it', async (t) => {
      const [phone, tablet, theirs, others, third] = await connect(t, 'ann', 'ann', 'ben', 'ben', 'cat');
      phone.tell({ emit: ['message:send', 'ben', 'Hello!'] });
      for (const device of [tablet, theirs, others]) {
        const message = await heard(device, RECEIVED);
        assertMessage(message, { senderId: 'ann', receiverId: 'ben', content: 'Hello!' });
        assert.deepEqual(await device.next('shown'), { shown: 'message', value: message });
        assert.deepEqual(await device.next('said'), { said: ['New message:', message] });
      }
      await send(theirs, 'ann', 'Hi!');
      assert.equal((await heard(phone, RECEIVED)).content, 'Hi!');
      await send(theirs, 'cat', 'And you?');
      assert.equal((await heard(third, RECEIVED)).content, 'And you?');
    });

    test('the acknowledgement has the whole message, and a repeated one the first', async (t) => {
      const [sender, receiver] = await connect(t, 'dan', 'eve');
      const more = { transactionId: 'txn-1', listingId: 'listing-1', clientMessageId: 'c-1' };
      const { ok, message } = await send(sender, 'eve', 'Are they there?', more);
      assert.equal(ok, true);
      const expected = { senderId: 'dan', receiverId: 'eve', content: 'Are they there?', transactionId: 'txn-1', listingId: 'listing-1' };
      assertMessage(message, expected);
      assert.deepEqual(await heard(receiver, RECEIVED), message);
      assert.deepEqual(await send(sender, 'eve', 'Are they there?', more), { ok: true, message });
      const { error } = await send(sender, 'eve', 'Another one', more);
      assert.equal(error.code, 'conflict');
      assert.deepEqual(await market.get('eve', '/conversation/dan'), [message]);
    });

    test('what is no message is refused with the reason', async (t) => {
      const [device] = await connect(t, 'fay');
      const wrong = [
        undefined, 'gus', {}, { receiverId: 'gus' }, { message: 'x' }, { receiverId: 'gus', message: '' }, { receiverId: '', message: 'x' },
        { receiverId: 'fay', message: 'to myself' }, { receiverId: 'gus', message: 'x'.repeat(4_001) }, { receiverId: 'gus', message: 'a\u0007' },
        { receiverId: 'gus', message: { text: 'x' } }, { receiverId: ['gus'], message: 'x' },
        { receiverId: 'gus', message: 'x', listingId: { id: 1 } },
      ];
      for (const payload of wrong) {
        const { error, ...rest } = await ask(device, 'message:send', payload);
        assert.deepEqual([error?.code, typeof error?.message, rest.message], ['invalid_argument', 'string', undefined], JSON.stringify(payload));
      }
      for (const text of ['x'.repeat(4_000), '🎫'.repeat(4_000), 'two\nlines\tand a tab']) {
        assert.equal((await send(device, 'gus', text)).message.content, text);
      }
    });

    test('a device that was away gets what came meanwhile in order, and it is unread until it is read', async (t) => {
      const [sender, first] = await connect(t, 'hal', 'ida');
      await first.stop();
      for (const text of ['1', '2', '3']) await send(sender, 'ida', text);
      assert.deepEqual(await market.get('ida', '/unread-count'), { count: 3 });
      const second = await market.connect(t, 'ida');
      for (const text of ['1', '2', '3']) assert.equal((await heard(second, RECEIVED)).content, text);
      assert.deepEqual(await market.get('ida', '/unread-count'), { count: 3 });
    });

    test('both users hear that messages were read, by their ids or all of a conversation', async (t) => {
      const [sender, reader, other] = await connect(t, 'jon', 'kim', 'kim');
      const ids = [];
      for (const text of ['1', '2', '3']) ids.push((await send(sender, 'kim', text)).message.id);
      assert.deepEqual(await ask(reader, 'message:read', { messageIds: [ids[0]] }), { ok: true, count: 1 });
      assert.deepEqual(await ask(reader, 'message:read', { userId: 'jon' }), { ok: true, count: 2 });
      assert.deepEqual(await ask(reader, 'message:read', { userId: 'jon' }), { ok: true, count: 0 });
      for (const device of [sender, other]) {
        for (const expected of [[ids[0]], ids.slice(1)]) {
          const { messageIds, readerId, readAt, ...rest } = await heard(device, 'message:read');
          assert.deepEqual([messageIds.sort(), readerId, rest], [expected.sort(), 'kim', {}]);
          assert.ok(Math.abs(Date.parse(readAt) - Date.now()) < 60_000, readAt);
        }
      }
      assert.deepEqual((await market.get('jon', '/conversation/kim')).map(({ isRead }) => isRead), [true, true, true]);
      assert.deepEqual(await market.get('kim', '/unread-count'), { count: 0 });
    });

    test('a deleted message is gone for both, also for a device that was away', async (t) => {
      const [sender, other, first] = await connect(t, 'lea', 'lea', 'max');
      const { message } = await send(sender, 'max', 'A mistake');
      await heard(first, RECEIVED);
      assert.equal((await ask(first, 'message:delete', { messageId: message.id })).error.code, 'forbidden');
      await first.stop();
      const { message: unseen } = await send(sender, 'max', 'Another one');
      const { message: kept } = await send(sender, 'max', 'Not a mistake');
      for (const { id } of [message, unseen]) assert.deepEqual(await ask(sender, 'message:delete', { messageId: id }), { ok: true });
      for (const { id } of [message, unseen]) assert.deepEqual(await heard(other, 'message:deleted'), { messageId: id });
      assert.equal((await ask(sender, 'message:delete', { messageId: message.id })).error.code, 'not_found');
      const second = await market.connect(t, 'max');
      assert.deepEqual(await heard(second, RECEIVED), kept);
      assert.deepEqual(await market.get('max', '/conversation/lea'), [kept]);
      await ask(sender, 'message:delete', { messageId: kept.id });
      assert.deepEqual(await heard(second, 'message:deleted'), { messageId: kept.id });
    });

    test('a blocked user is refused until that has ended', async (t) => {
      const [sender, receiver] = await connect(t, 'ned', 'oda');
      assert.deepEqual(await ask(receiver, 'message:block', { userId: 'ned' }), { ok: true });
      assert.deepEqual(await market.get('oda', '/blocks'), ['ned']);
      assert.equal((await send(sender, 'oda', 'Why?')).error.code, 'forbidden');
      assert.deepEqual(await ask(receiver, 'message:block', { userId: 'ned', blocked: false }), { ok: true });
      assert.equal((await send(sender, 'oda', 'Thank you')).ok, true);
      assert.equal((await heard(receiver, RECEIVED)).content, 'Thank you');
    });

    test('typing is told to all devices of the receiver, and ends by itself, and with the connection', async (t) => {
      const [sender, phone, tablet] = await connect(t, 'pia', 'quin', 'quin');
      const both = async (event) => {
        for (const device of [phone, tablet]) assert.deepEqual(await heard(device, event), { userId: 'pia' });
      };
      sender.tell({ emit: ['typing:start', 'quin'] });
      await both('typing:start');
      assert.deepEqual(await phone.next('said'), { said: ['pia is typing...'] });
      sender.tell({ emit: ['typing:stop', 'quin'] });
      await both('typing:stop');
      sender.tell({ emit: ['typing:start', 'quin'] });
      await both('typing:start');
      const begun = Date.now();
      await both('typing:stop');
      assert.ok(Date.now() - begun > 4_000, 'Bugle waits 5 s');
      sender.tell({ emit: ['typing:start', 'quin'] });
      await both('typing:start');
      await sender.stop();
      await both('typing:stop');
    });

    test('many messages of both users are in one order on all devices and over REST', async (t) => {
      const [mine, mine2, theirs, theirs2] = await connect(t, 'rob', 'rob', 'sue', 'sue');
      const count = 20;
      for (let number = 0; number < count; number += 1) {
        mine.tell({ emit: ['message:send', 'sue', `a${number}`] });
        theirs.tell({ emit: ['message:send', 'rob', `b${number}`] });
      }
      const first = [];
      while (first.length < 2 * count) first.push(await heard(mine2, RECEIVED));
      const times = first.map(({ createdAt }) => createdAt);
      assert.deepEqual(times, [...new Set(times)].sort());
      for (const [user, peer] of [['rob', 'sue'], ['sue', 'rob']]) {
        const own = first.filter(({ senderId }) => senderId === user);
        assert.deepEqual(own.map(({ content }) => content.slice(1)), Array.from({ length: count }, (_, number) => `${number}`));
        assert.deepEqual(await market.get(user, `/conversation/${peer}`), first.toReversed());
      }
      for (const [device, own] of [[theirs2, ''], [mine, 'rob'], [theirs, 'sue']]) {
        for (const message of first.filter(({ senderId }) => senderId !== own)) assert.deepEqual(await heard(device, RECEIVED), message);
      }
    });
  });
}
