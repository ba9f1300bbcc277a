import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { assertMessage, heard, Market } from './harness/market.js';

const contents = (messages) => messages.map(({ content }) => content);

for (const nodes of [1, 3]) {
  describe(`messages over REST, on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`, async () => {
    const market = await Market.start(nodes);
    const { rest, get, post } = Object.fromEntries(['rest', 'get', 'post'].map((name) => [name, market[name].bind(market)]));
    const statusOf = async (...request) => {
      const { status, body } = await rest(...request);
      if (status >= 400) assert.deepEqual([typeof body.error.code, typeof body.error.message, Object.keys(body)], ['string', 'string', ['error']]);
      return status;
    };

    test('POST sends to all devices of both users, and answers with the whole message', async (t) => {
      const devices = await market.connectAll(t, 'ann', 'ben');
      const about = { transactionId: 'txn-1', listingId: 'listing-1', clientMessageId: 'c-1' };
      const message = await post('ann', 'ben', 'Hello!', about);
      assertMessage(message, { senderId: 'ann', receiverId: 'ben', content: 'Hello!', transactionId: 'txn-1', listingId: 'listing-1' });
      for (const device of devices) assert.deepEqual(await heard(device, 'message:received'), message);
      const again = await rest('ann', 'POST', '', { receiverId: 'ben', content: 'Hello!', ...about });
      assert.deepEqual([again.status, again.body], [200, message]);
      assert.equal(await statusOf('ann', 'POST', '', { receiverId: 'ben', content: 'Another one', ...about }), 409);
      assertMessage(await post('ann', 'ben', 'Bye'), { senderId: 'ann', receiverId: 'ben', content: 'Bye' });
    });

    test('GET conversation/:userId has the messages of both, the newest first, by offset or by message', async () => {
      for (let number = 1; number <= 5; number += 1) await post(number % 2 ? 'cat' : 'dan', number % 2 ? 'dan' : 'cat', `${number}`);
      await post('cat', 'eve', 'for another one');
      const all = await get('dan', '/conversation/cat');
      assert.deepEqual(contents(all), ['5', '4', '3', '2', '1']);
      assert.deepEqual(await get('cat', '/conversation/dan'), all);
      const times = all.map(({ createdAt }) => createdAt);
      assert.deepEqual(times, [...new Set(times)].sort().reverse());
      assert.deepEqual(contents(await get('dan', '/conversation/cat?limit=2')), ['5', '4']);
      assert.deepEqual(contents(await get('dan', '/conversation/cat?limit=2&offset=2')), ['3', '2']);
      assert.deepEqual(contents(await get('dan', `/conversation/cat?limit=2&before=${all[1].id}`)), ['3', '2']);
      assert.deepEqual(contents(await get('dan', `/conversation/cat?before=${all[4].id}`)), []);
      assert.deepEqual(await get('dan', '/conversation/nobody'), []);
    });

    test('GET conversations has each with its last message and unread count, the newest first', async () => {
      for (const [sender, text] of [['fay', 'f1'], ['gus', 'g1'], ['hal', 'h1'], ['fay', 'f2']]) await post(sender, 'ida', text);
      await post('ida', 'gus', 'g2');
      const list = await get('ida', '/conversations');
      const shown = (page) => page.map(({ userId, lastMessage, unreadCount }) => [userId, lastMessage.content, unreadCount]);
      assert.deepEqual(shown(list), [['gus', 'g2', 1], ['fay', 'f2', 2], ['hal', 'h1', 1]]);
      for (const entry of list) assert.deepEqual(Object.keys(entry), ['userId', 'lastMessage', 'unreadCount']);
      assertMessage(list[1].lastMessage, { senderId: 'fay', receiverId: 'ida', content: 'f2' });
      assert.deepEqual(shown(await get('ida', '/conversations?limit=1')), [['gus', 'g2', 1]]);
      assert.deepEqual(shown(await get('ida', `/conversations?limit=1&before=${list[0].lastMessage.id}`)), [['fay', 'f2', 2]]);
      assert.deepEqual(shown(await get('ida', `/conversations?before=${list[1].lastMessage.createdAt}`)), [['hal', 'h1', 1]]);
      assert.deepEqual(shown(await get('hal', '/conversations')), [['ida', 'h1', 0]]);
      assert.deepEqual(await get('nobody', '/conversations'), []);
    });

    test('PUT marks a message or a conversation as read, and the count and the devices follow', async (t) => {
      const [sender, reader] = await market.connectAll(t, 'jon', 'kim');
      const ids = [];
      for (const text of ['1', '2', '3']) ids.push((await post('jon', 'kim', text)).id);
      const other = await post('leo', 'kim', 'of another one');
      assert.deepEqual(await get('kim', '/unread-count'), { count: 4 });
      assert.equal(await statusOf('kim', 'PUT', `/${ids[0]}/read`), 204);
      assert.deepEqual(await get('kim', '/unread-count'), { count: 3 });
      assert.equal(await statusOf('kim', 'PUT', '/conversation/jon/read'), 204);
      assert.equal(await statusOf('kim', 'PUT', '/conversation/jon/read'), 204);
      assert.deepEqual(await get('kim', '/unread-count'), { count: 1 });
      for (const device of [sender, reader]) {
        for (const expected of [[ids[0]], ids.slice(1)]) {
          const { messageIds, readerId } = await heard(device, 'message:read');
          assert.deepEqual([messageIds.sort(), readerId], [expected.sort(), 'kim']);
        }
      }
      assert.deepEqual((await get('jon', '/conversation/kim')).map(({ isRead }) => isRead), [true, true, true]);
      assert.equal(await statusOf('kim', 'PUT', `/${other.id}/read`), 204);
      assert.deepEqual(await get('kim', '/unread-count'), { count: 0 });
      assert.deepEqual(await get('nobody', '/unread-count'), { count: 0 });
    });

    test("GET transaction/:id and listing/:id have the caller's own messages, the newest first", async () => {
      const [transactionId, listingId] = ['txn-7', 'listing-7'];
      await post('max', 'ned', 't1', { transactionId });
      await post('ned', 'max', 't2', { transactionId });
      await post('max', 'oda', 't3', { transactionId });
      await post('oda', 'max', 'l1', { listingId });
      assert.deepEqual(contents(await get('max', '/transaction/txn-7')), ['t3', 't2', 't1']);
      assert.deepEqual(contents(await get('ned', '/transaction/txn-7')), ['t2', 't1']);
      assert.deepEqual(contents(await get('max', '/transaction/txn-7?limit=1&offset=1')), ['t2']);
      assert.deepEqual(contents(await get('oda', '/listing/listing-7')), ['l1']);
      assert.equal(await statusOf('ned', 'GET', '/listing/listing-7'), 404);
      assert.equal(await statusOf('max', 'GET', '/transaction/txn-8'), 404);
    });

    test('DELETE takes a message from both, by its sender alone', async (t) => {
      const [sender, receiver] = await market.connectAll(t, 'pia', 'quin');
      await post('pia', 'quin', 'A word');
      const { id } = await post('pia', 'quin', 'A mistake');
      assert.equal(await statusOf('quin', 'DELETE', `/${id}`), 403);
      assert.equal(await statusOf('pia', 'DELETE', `/${id}`), 204);
      assert.equal(await statusOf('pia', 'DELETE', `/${id}`), 404);
      for (const device of [sender, receiver]) assert.deepEqual(await heard(device, 'message:deleted'), { messageId: id });
      assert.deepEqual(contents(await get('quin', '/conversation/pia')), ['A word']);
      assert.deepEqual(await get('quin', '/unread-count'), { count: 1 });
      const [{ lastMessage }] = await get('quin', '/conversations');
      assert.equal(lastMessage.content, 'A word');
    });

    test('blocks are set, listed and ended', async () => {
      assert.deepEqual(await get('rob', '/blocks'), []);
      assert.equal(await statusOf('rob', 'PUT', '/blocks/sue'), 204);
      assert.deepEqual(await get('rob', '/blocks'), ['sue']);
      assert.deepEqual(await get('sue', '/blocks'), []);
      assert.equal(await statusOf('sue', 'POST', '', { receiverId: 'rob', content: 'x' }), 403);
      assert.equal(await statusOf('rob', 'POST', '', { receiverId: 'sue', content: 'x' }), 403);
      assert.equal(await statusOf('rob', 'DELETE', '/blocks/sue'), 204);
      assert.equal(await statusOf('sue', 'POST', '', { receiverId: 'rob', content: 'x' }), 201);
    });

    test('what is wrong is refused by its status', async () => {
      const cases = [
        {}, { receiverId: 'ben' }, { content: 'x' }, { receiverId: 'ben', content: '' }, { receiverId: 'tom', content: 'to myself' },
        { receiverId: 'ben', content: 'x'.repeat(4_001) }, { receiverId: 'ben', content: 'a\u0000' }, { receiverId: 'ben', content: 7 },
        { receiverId: 'ben', content: 'x', listingId: {} }, 'no JSON', '[]',
      ];
      for (const body of cases) assert.equal(await statusOf('tom', 'POST', '', body), 400, JSON.stringify(body));
      for (const query of ['limit=0', 'limit=x', 'offset=-1', 'before=never', 'limit=1&limit=2']) {
        assert.equal(await statusOf('tom', 'GET', `/conversation/ben?${query}`), 400, query);
      }
      assert.equal(await statusOf('tom', 'PUT', '/no-id/read'), 400);
      assert.equal(await statusOf('tom', 'POST', '', { receiverId: 'ben', content: 'x'.repeat(70_000) }), 413);
      assert.equal(await statusOf(undefined, 'GET', '/conversations'), 401);
      assert.equal(await statusOf(undefined, 'GET', '/conversations', undefined, { authorization: 'Bearer nonsense' }), 401);
      const flood = Array.from({ length: 300 }, (_, number) => rest('tom', 'POST', '', { receiverId: `ben-${number % 9}`, content: 'x' }));
      const answers = await Promise.all(flood);
      const { body, headers } = answers.find(({ status }) => status === 429);
      assert.match(body.error.message, /messages\.rate/);
      assert.match(headers.get('retry-after'), /^[1-9]\d*$/);
      assert.deepEqual([...new Set(answers.map(({ status }) => status))].sort(), [201, 429]);
    });

    test('a third user finds nothing of a conversation, and hears nothing of it', async (t) => {
      const third = await market.connect(t, 'eavesdropper');
      const { id, createdAt } = await post('una', 'val', 'A secret', { transactionId: 'txn-9', listingId: 'listing-9' });
      const refused = [
        ['PUT', `/${id}/read`, 404], ['DELETE', `/${id}`, 404], ['GET', '/transaction/txn-9', 404], ['GET', '/listing/listing-9', 404],
      ];
      for (const [method, path, status] of refused) assert.equal(await statusOf('eavesdropper', method, path), status, path);
      const empty = [
        '/conversations', `/conversations?before=${createdAt}`, '/conversation/una', '/conversation/val', `/conversation/una?before=${id}`,
      ];
      for (const path of empty) {
        const { status, body } = await rest('eavesdropper', 'GET', path);
        assert.ok(status === 404 || (status === 200 && body.length === 0), `${path}: ${status} ${JSON.stringify(body)}`);
      }
      assert.equal(await statusOf('eavesdropper', 'PUT', '/conversation/una/read'), 204);
      assert.equal((await get('val', '/conversation/una'))[0].isRead, false);
      assert.deepEqual(await get('eavesdropper', '/unread-count'), { count: 0 });
      await statusOf('val', 'PUT', `/${id}/read`);
      await statusOf('una', 'DELETE', `/${id}`);
      await post('una', 'eavesdropper', 'Not a secret');
      assert.equal((await heard(third, 'message:received')).content, 'Not a secret');
      assert.deepEqual(third.lines.drain().filter(({ event }) => event?.startsWith('message:')), []);
    });
  });
}
