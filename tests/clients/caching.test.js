import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { CachingProxy } from './harness/caching_proxy.js';
import { exchange } from './harness/polling.js';
import { Traveller } from './harness/traveller.js';
import { newUser, startWorld } from './transports/world.js';

const { bugle, node } = await startWorld({ after }, { isCompared: true, keys: { 'clients.cors_origins': ['https://app.example.com'] } });

describe('behind a shared cache each device that polls gets its own', { concurrency: true }, () => {
  for (const [name, server] of Object.entries({ Bugle: bugle, 'the reference, Node': node })) {
    for (const client of ['2.x', '3.x', '4.x', 'python']) {
      test(`${client} at ${name}`, async (t) => {
        const proxy = await CachingProxy.before(t, server.port);
        const users = [newUser(), newUser()];
        const devices = [];
        for (const user of users) {
          const device = Traveller.open(t, proxy.url, { client, way: 'polling', token: server.token(user) });
          assert.equal((await device.welcome()).userId, user);
          devices.push(device);
        }
        for (const user of users) await server.send(user, `for ${user}`);
        for (const [index, device] of devices.entries()) assert.equal(await device.messages.next(), `for ${users[index]}`);
        assert.equal(proxy.hits, 0);
      });
    }
  }
});

test('no answer under the path may be kept, whatever it is', async () => {
  const path = `${bugle.url}/socket.io/`;
  const open = async (protocol) => JSON.parse(/\{.*\}/.exec((await exchange(`${path}?EIO=${protocol}&transport=polling`)).text)[0]).sid;
  const [sid, posted] = [await open(4), await open(4)];
  const session = `${path}?EIO=4&transport=polling&sid=`;
  // Refused by its length: a body that is sent all the same may meet a closed connection.
  const large = { method: 'POST', headers: { 'content-length': 1_000_001 } };
  const requests = {
    'a handshake': [`${path}?EIO=4&transport=polling`, {}, 200],
    'a handshake of revision 3': [`${path}?EIO=3&transport=polling`, {}, 200],
    'a POST': [session + sid, { method: 'POST', body: '40' }, 200],
    'a poll': [session + sid, {}, 200],
    'a preflight': [path, { method: 'OPTIONS', headers: preflight() }, 200],
    'another origin': [`${path}?EIO=4&transport=polling`, { headers: { origin: 'https://evil.example.com' } }, 403],
    'no transport': [`${path}?EIO=4`, {}, 400],
    'an unknown session': [`${session}unknown`, {}, 400],
    'a POST without a session': [`${path}?EIO=4&transport=polling`, { method: 'POST', body: '40' }, 400],
    'a WebSocket that is none': [`${path}?EIO=4&transport=websocket`, {}, 400],
    'too large a POST': [session + posted, large, 413],
    'another method': [session + posted, { method: 'DELETE' }, undefined],
    'another path below it': [`${path}other`, {}, undefined],
  };
  for (const [what, [url, options, status]] of Object.entries(requests)) {
    const answer = await exchange(url, options);
    if (status) assert.equal(answer.status, status, `${what}: ${answer.text}`);
    assert.equal(answer.headers['cache-control'], 'no-store', `${what}: ${answer.status}`);
  }
});

function preflight() {
  return { origin: 'https://app.example.com', 'access-control-request-method': 'GET' };
}
