import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, describe, test } from 'node:test';

import { counts } from './harness/backend.js';
import { Device, KINDS } from './harness/device.js';
import { Server } from './harness/server.js';

const server = await Server.start({ after });
const RECEIVED = { matched: 1, enqueued: 1, dropped: 0 };
const LARGE = 900_000;

const TEXTS = {
  'the order of keys, and keys that look like numbers': '{"b":1,"a":2,"10":3,"2":4}',
  'a number with a trailing zero, and one with an exponent': '{"price":1.10,"tiny":1E-7}',
  'an integer past 2^53': '[12345678901234567890,-9007199254740993]',
  'emoji, line separators and escapes': '{"text":"\u{1F680} \u2028\u2029 \\u00e9 \\/ \\" é"}',
  'a key that looks like a placeholder of an attachment': '{"_placeholder":true,"num":0}',
  'blanks between the parts': '{ "a" : [ 1 , 2 ] }',
  'the empty texts, lists and objects': '["",[],{},null,false]',
  'a text alone': '"text"',
  'null alone': 'null',
};

for (const kind of KINDS) {
  const { client, way } = kind;
  describe(`to ${client} by ${way}`, () => {
    const user = `reader ${client} ${way}`;
    const connect = (t) => Device.connect(t, server.url, { ...kind, token: server.token(user) });
    const emit = (payload, options) => server.backend.emit(user, 'note', payload, options);

    test('JSON arrives as it was given, byte for byte', async (t) => {
      const device = await connect(t);
      for (const [what, text] of Object.entries(TEXTS)) {
        device.wire.drain();
        assert.deepEqual(counts(await emit({ json: text })), RECEIVED, what);
        const [received] = await device.heard('note').next();
        assert.equal(JSON.stringify(received), JSON.stringify(JSON.parse(text)), what);
        assert.equal(await device.wire.find((message) => message.startsWith('2[')), `2["note",${text}]`, what);
      }
    });

    test('a value arrives as JSON', async (t) => {
      const device = await connect(t);
      const fields = { balance: { stringValue: '100.50' }, count: { numberValue: 3 } };
      await emit({ value: { structValue: { fields } } });
      assert.deepEqual(await device.heard('note').next(), [{ balance: '100.50', count: 3 }]);
    });

    test('an event without a payload has no argument', async (t) => {
      const device = await connect(t);
      await emit({});
      assert.deepEqual(await device.heard('note').next(), []);
    });

    test('an envelope holds the event, the time and the payload', async (t) => {
      const device = await connect(t);
      await emit({ json: '{"b":1,"a":2}' }, { envelope: true });
      const [{ timestamp, ...rest }] = await device.heard('note').next();
      assert.deepEqual(rest, { event: 'note', data: { b: 1, a: 2 } });
      assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    });

    test('a payload of 900 KB arrives whole', async (t) => {
      const device = await connect(t);
      const text = JSON.stringify('é'.repeat(LARGE / 2));
      assert.deepEqual(counts(await emit({ json: text })), RECEIVED);
      const [received] = await device.heard('note').next();
      assert.ok(received === JSON.parse(text));
    });

    test('bytes arrive as they were given', async (t) => {
      const device = await connect(t);
      for (const bytes of [Buffer.from([0, 4, 255, 128, 10]), Buffer.alloc(0), randomBytes(LARGE)]) {
        assert.deepEqual(counts(await emit({ binary: bytes })), RECEIVED, `${bytes.length} bytes`);
        const [received] = await device.heard('note').next();
        assert.ok(Buffer.isBuffer(received) || received instanceof ArrayBuffer, `${bytes.length} bytes`);
        assert.ok(Buffer.from(received).equals(bytes), `${bytes.length} bytes`);
      }
      await emit({ json: '"next"' });
      assert.deepEqual(await device.heard('note').next(), ['next']);
    });

    test('events keep their order, also while the device upgrades', async (t) => {
      const device = Device.open(t, server.url, { ...kind, token: server.token(user) });
      await device.connects.next();
      const numbers = Array.from({ length: 300 }, (_, number) => number);
      for (const number of numbers) assert.deepEqual(counts(await emit({ json: `${number}` })), RECEIVED);
      const received = await device.heard('note').take(numbers.length);
      assert.deepEqual(received.flat(), numbers);
      await device.settled();
    });
  });
}
