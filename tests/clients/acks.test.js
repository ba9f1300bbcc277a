import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { counts } from './harness/backend.js';
import { Arrivals, within } from './harness/deadline.js';
import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });

const asking = (mode, seconds = 8) => ({ ack: { mode: `MODE_${mode}`, timeout: { seconds } } });
const outcomes = ({ acks }) => acks.map(({ outcome, json }) => [outcome.replace('OUTCOME_', ''), json]);
const ask = (user, options, json = '{"n":1.10}') => server.backend.emit(user, 'question', { json }, options);

/** A connected device, and each question that reaches it: its arguments, the last of which answers it. */
async function connect(t, kind, user) {
  const device = await Device.connect(t, server.url, { ...kind, token: server.token(user) });
  const questions = new Arrivals('a question');
  device.socket.on('question', (...args) => questions.push(args));
  return { device, questions };
}

for (const kind of KINDS) {
  describe(`${kind.client} by ${kind.way}`, () => {
    const user = (what) => `${what} ${kind.client} ${kind.way}`;

    test('what a handler replies is told to the letter', async (t) => {
      const asked = user('asked');
      const { device, questions } = await connect(t, kind, asked);
      const replies = [[], [null], [{ b: 1.5, a: [true] }], ['é\u2028', 2, { _placeholder: false }]];
      for (const reply of replies) {
        const receipt = ask(asked, asking('ALL'));
        const [payload, ack, ...more] = await questions.next();
        assert.deepEqual([payload, more], [{ n: 1.1 }, []]);
        ack(...reply);
        assert.deepEqual(outcomes(await receipt), [['REPLIED', JSON.stringify(reply)]]);
      }
      const receipt = server.backend.emit(asked, 'question', {}, asking('ALL'));
      const [ack, ...more] = await questions.next();
      assert.deepEqual(more, []);
      ack();
      const { acks, replied } = await receipt;
      assert.deepEqual([acks[0].user_id, acks[0].connection_id, replied], [asked, device.welcome.connectionId, 1]);
    });

    test('one reply is enough for ANY, and ALL waits for both', async (t) => {
      const [one, other] = await Promise.all([connect(t, kind, user('two')), connect(t, kind, user('two'))]);
      const any = ask(user('two'), asking('ANY'));
      (await one.questions.next())[1]('first');
      assert.deepEqual(outcomes(await any), [['REPLIED', '["first"]'], ['PENDING', '']]);
      (await other.questions.next())[1]('late');

      const all = ask(user('two'), asking('ALL'));
      (await one.questions.next())[1](1);
      (await other.questions.next())[1](2);
      const replied = await all;
      assert.deepEqual(outcomes(replied).map(([, json]) => json).sort(), ['[1]', '[2]']);
      assert.equal(replied.replied, 2);
    });

    test('who does not reply is waited for until the timeout', async (t) => {
      const { questions } = await connect(t, kind, user('silent'));
      const receipt = await server.backend.emit(user('silent'), 'question', {}, {
        ack: { mode: 'MODE_ALL', timeout: { nanos: 200_000_000 } },
      });
      assert.deepEqual([counts(receipt), outcomes(receipt)], [{ matched: 1, enqueued: 1, dropped: 0 }, [['TIMEOUT', '']]]);
      await questions.next();
    });

    test('who leaves before replying is gone', async (t) => {
      const { device, questions } = await connect(t, kind, user('leaving'));
      const receipt = ask(user('leaving'), asking('ALL', 60));
      await questions.next();
      device.close();
      assert.deepEqual(outcomes(await within(receipt, 'the receipt')), [['GONE', '']]);
    });

    test('a reply with bytes is unsupported', async (t) => {
      const { device, questions } = await connect(t, kind, user('binary'));
      const receipt = ask(user('binary'), asking('ALL'));
      (await questions.next())[1]({ bytes: Buffer.from([1, 2, 3]) });
      assert.deepEqual(outcomes(await receipt), [['UNSUPPORTED', '']]);
      assert.ok((await device.ask('unknown')).error, 'the connection goes on');
    });
  });
}

test('a batch is sent in order and awaited together', async (t) => {
  const { questions } = await connect(t, KINDS[0], 'batch');
  const emits = [0, 1, 2].map((n) => ({
    user_id: 'batch',
    event: 'question',
    json: `${n}`,
    options: asking('ALL'),
  }));
  const answer = server.backend.emitBatch({ emits });
  const asked = await questions.take(3);
  assert.deepEqual(asked.map(([n]) => n), [0, 1, 2]);
  for (const [n, ack] of asked.reverse()) ack(n);
  const { results } = await answer;
  assert.deepEqual(results.map(({ receipt }) => outcomes(receipt)), [0, 1, 2].map((n) => [['REPLIED', `[${n}]`]]));
});
