import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { counts } from './harness/backend.js';
import { Network } from './harness/network.js';
import { PythonDevice } from './harness/python.js';
import { Server } from './harness/server.js';

const TEXT = '{"b":1,"a":1.10,"large":12345678901234567890,"text":"\u{1F680}\u2028","_placeholder":true,"num":0}';
const server = await Server.start({ after });

/** What a device in Python tells. */
function run(t, url, transport, token) {
  return PythonDevice.run(t, url, transport, token).told;
}

async function ready(told, transport, first = told.next()) {
  assert.deepEqual(await first, { what: 'connect', transport });
  const { event, payload } = await told.next();
  assert.equal(event, 'connected');
  return payload[0];
}

for (const transport of ['polling', 'websocket']) {
  describe(`python-socketio by ${transport}`, () => {
    const connect = async (t, user, url = server.url) => {
      const told = run(t, url, transport, server.token(user));
      assert.equal((await ready(told, transport)).userId, user);
      return told;
    };
    const emit = (user, payload) => server.backend.emit(user, 'note', payload);
    const received = (...payload) => ({ what: 'event', event: 'note', payload });

    test('receives JSON, bytes and nothing', async (t) => {
      const user = `reader ${transport}`;
      const told = await connect(t, user);
      assert.deepEqual(counts(await emit(user, { json: TEXT })), { matched: 1, enqueued: 1, dropped: 0 });
      assert.deepEqual(await told.next(), received(JSON.parse(TEXT)));
      await emit(user, { binary: Buffer.from([0, 4, 255]) });
      assert.deepEqual(await told.next(), received({ base64: 'AAT/' }));
      await emit(user, {});
      assert.deepEqual(await told.next(), received());
    });

    test('what was stored comes as one argument, also to a handler that acknowledges', async (t) => {
      const user = `away ${transport}`;
      const store = { store: true };
      await server.backend.emit(user, 'note', { json: '1' }, store);
      const told = await connect(t, user);
      assert.deepEqual(await told.next(), received(1));
      await server.backend.emit(user, 'note', { json: '2' }, store);
      assert.deepEqual(await told.next(), received(2));
      const ack = { mode: 'MODE_ALL', timeout: { seconds: 5 } };
      const { acks } = await server.backend.emit(user, 'question', { json: '"one"' }, { ...store, ack });
      assert.equal(acks[0].json, '[{"seen":true}]');
    });

    test('acknowledges with what its handler returns', async (t) => {
      const user = `acknowledging ${transport}`;
      await connect(t, user);
      const ack = { mode: 'MODE_ALL', timeout: { seconds: 5 } };
      const replies = { one: '[{"seen":true}]', several: '["yes",1,null]', none: '[]' };
      for (const [question, json] of Object.entries(replies)) {
        const { acks } = await server.backend.emit(user, 'question', { json: JSON.stringify(question) }, { ack });
        assert.deepEqual(acks.map(({ outcome, json }) => [outcome, json]), [['OUTCOME_REPLIED', json]]);
      }
      const { acks } = await server.backend.emit(user, 'question', { json: '"binary"' }, { ack });
      assert.deepEqual(acks.map(({ outcome }) => outcome), ['OUTCOME_UNSUPPORTED']);
    });

    test('is told of DisconnectUser and does not come back', async (t) => {
      const user = `logged out ${transport}`;
      const told = await connect(t, user);
      assert.equal((await server.backend.disconnectUser({ user_id: user })).disconnected, 1);
      const { event, payload } = await told.next();
      assert.deepEqual([event, payload[0].code, payload[0].retry], ['bugle:disconnect', 'disconnected', false]);
      assert.deepEqual(await told.next(), { what: 'disconnect', reason: 'server disconnect' });
      assert.deepEqual(await told.next(), { what: 'end' });
    });

    test('comes back after the network was gone', async (t) => {
      const network = await Network.before(t, server.port);
      const user = `traveller ${transport}`;
      const told = await connect(t, user, network.url);
      await network.cut();
      assert.equal((await told.next()).what, 'disconnect');
      await network.restore();
      // An attempt may have failed while the network was gone.
      await ready(told, transport, told.find(({ what }) => what !== 'connect_error'));
      await emit(user, { json: '"back"' });
      assert.deepEqual(await told.next(), received('back'));
    });

    test('is told of a wrong token and cannot connect', async (t) => {
      const told = run(t, server.url, transport, 'wrong');
      assert.deepEqual(await told.next(), { what: 'connect_error', error: { message: 'Invalid or expired token' } });
      assert.deepEqual(await told.next(), { what: 'ConnectionError' });
    });
  });
}
