import assert from 'node:assert/strict';

import { RawSession } from '../harness/raw_session.js';
import { Traveller } from '../harness/traveller.js';
import { newUser, nothingSeen } from './world.js';

/** A device upgrades when its last poll brought only a part of the messages that wait: `count` of `size` bytes. */
function upgradesAfterFullPoll({ load, keys, count, size }) {
  return {
    title: `what did not fit into the last poll moves to the WebSocket, with ${load}`,
    factors: { protocol: [4, 3], mode: ['plain', 'resuming'], sends: ['store', 'send'] },
    keys,
    async run(t, { bugle }, { protocol, mode, sends }) {
      const user = newUser();
      const token = bugle.token(user);
      const session = await RawSession.open(t, bugle.url, { protocol, token, resume: nothingSeen(mode) });
      await session.pollFor(mode === 'plain' ? '"connected"' : '"bugle:resumed"');
      for (let n = 0; n < count; n += 1) await bugle[sends](user, { n, pad: 'x'.repeat(size) });
      const polled = await session.poll();
      await session.probe();
      polled.push(...(await session.poll()));
      session.upgrade();
      await bugle[sends](user, { n: count });

      const numbers = numbersIn(polled);
      while (numbers.at(-1) !== count) numbers.push(...numbersIn([await session.received.next()]));
      assert.deepEqual(numbers, Array.from({ length: count + 1 }, (_, n) => n));
      await bugle.send(user, { n: 'end' });
      await session.received.find((packet) => packet.includes('"end"'));
      session.close();
      await bugle.connections(user, 0);
      const next = Traveller.open(t, bugle.url, { client: '4.x', way: 'websocket', token });
      await next.welcome();
      await bugle.send(user, { n: 'fence' });
      assert.deepEqual(await next.messages.next(), { n: 'fence' }, 'nothing comes again');
    },
  };
}

export const fullPoll = upgradesAfterFullPoll({ load: 'the default max_message', keys: {}, count: 2, size: 600_000 });
export const fullSmallPoll = upgradesAfterFullPoll({
  load: 'max_message = 65,536',
  keys: { 'socketio.max_message': 65_536, 'socketio.queue_bytes': 8_388_608 },
  count: 3,
  size: 40_000,
});

function numbersIn(packets) {
  return packets.flatMap((packet) => [.../^42\["m",\{"n":(\d+)/.exec(packet)?.slice(1) ?? []].map(Number));
}
