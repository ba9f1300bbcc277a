import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { bugle } from './harness/binary.js';
import { Configuration } from './harness/configuration.js';
import { Device } from './harness/device.js';
import { Server } from './harness/server.js';

const [AS_ASKED, FAILED, USAGE] = [0, 1, 64];
const server = await Server.start({ after });
const { configuration } = server;
const WITH_FILE = ['--config', configuration.path];
const asBackend = { env: { BUGLE_SERVER: server.grpcAddress, BUGLE_API_KEY: configuration.apiKey } };

async function succeeds(args, options) {
  const { code, stdout, stderr } = await bugle(args, options);
  assert.equal(code, AS_ASKED, stderr);
  return stdout;
}

async function fails(args, expected, options) {
  const { code, stdout, stderr } = await bugle(args, options);
  assert.equal(code, expected, stderr);
  assert.equal(stdout, '');
  return stderr;
}

describe('bugle token', () => {
  test('a minted token lets a device in', async (t) => {
    const token = await succeeds(['token', 'mint', '--user', '42', '--role', 'driver', ...WITH_FILE]);
    const device = await Device.connect(t, server.url, { token: token.trim() });
    assert.equal(device.welcome.userId, '42');
    assert.ok(device.welcome.rooms.includes('role:driver'));
  });

  test('verify tells whom a token names', async () => {
    const token = configuration.token('42', { role: 'driver' });
    for (const [args, options] of [[[token], {}], [['-'], { input: `${token}\n` }]]) {
      const identity = JSON.parse(await succeeds(['token', 'verify', ...args, ...WITH_FILE], options));
      assert.deepEqual([identity.user, identity.roles], ['42', ['driver']]);
    }
  });

  test('verify fails for a token that devices do not get in with', async () => {
    for (const token of [configuration.token('42', {}, '-1h'), 'no token at all']) {
      const told = await fails(['token', 'verify', token, ...WITH_FILE], FAILED);
      assert.match(told, /the token is refused/);
      assert.ok(!told.includes(token));
    }
  });
});

describe('bugle check-config', () => {
  test('a good file is good, and is printed without its secrets', async () => {
    assert.match(await succeeds(['check-config', ...WITH_FILE]), /good/);
    const printed = await succeeds(['check-config', '--print', ...WITH_FILE]);
    assert.match(printed, /\[socketio\]/);
    assert.ok(!printed.includes(configuration.apiKey));
  });

  test('every fault is told at once, with its key', async (t) => {
    const faulty = new Configuration({ 'drain.pace': 0, 'log.format': 'xml', 'socketio.paht': '/', 'auth.jwt.keys': [] });
    t.after(() => faulty.remove());
    for (const command of ['check-config', 'serve']) {
      const told = await fails([command, '--config', faulty.path], USAGE);
      for (const key of ['drain.pace', 'log.format', 'socketio.paht', 'auth.jwt.keys']) assert.ok(told.includes(key), told);
    }
  });

  test('the environment is stronger than the file', async () => {
    const printed = await succeeds(['check-config', '--print', ...WITH_FILE], { env: { BUGLE_DRAIN__PACE: '7' } });
    assert.match(printed, /^pace = 7$/m);
    assert.match(await fails(['check-config', ...WITH_FILE], USAGE, { env: { BUGLE_DRAIN__PACE: '0' } }), /drain\.pace/);
  });
});

describe('bugle emit', () => {
  const note = ['note', '{"b":1.10,"a":2}'];

  test('user, room and all reach a device and print the receipt', async (t) => {
    const device = await Device.connect(t, server.url, { token: server.token('emitted to', { role: 'driver' }) });
    for (const target of [['user', 'emitted to'], ['room', 'role:driver'], ['all']]) {
      const receipt = JSON.parse(await succeeds(['emit', ...target, ...note], asBackend));
      assert.equal(receipt.enqueued, receipt.matched);
      assert.ok(receipt.matched > 0);
      await device.wire.find((message) => message === '2["note",{"b":1.10,"a":2}]');
    }
  });

  test('acknowledgements are asked for, and printed with the receipt', async (t) => {
    const device = await Device.connect(t, server.url, { token: server.token('asked') });
    device.socket.on('question', (text, ack) => ack(text, 1.5));
    const question = ['emit', 'user', 'asked', 'question', '"?"', '--ack', 'all', '--ack-timeout', '5s'];
    const { acks, replied } = JSON.parse(await succeeds(question, asBackend));
    assert.deepEqual([replied, acks[0].outcome, acks[0].json], [1, 'OUTCOME_REPLIED', '["?",1.5]']);
    assert.equal(acks[0].connection_id, device.welcome.connectionId);
    assert.match(await fails([...question.slice(0, -1), '2m'], FAILED, asBackend), /options\.ack\.timeout/);
    assert.match(await fails([...question.slice(0, -4), '--ack-timeout', '5s'], USAGE, asBackend), /--ack/);
  });

  test('nobody there is no failure', async () => {
    const receipt = JSON.parse(await succeeds(['emit', 'user', 'nobody', 'note'], asBackend));
    assert.equal(receipt.matched, 0);
  });

  test('refusals are told with their code', async () => {
    const wrongKey = { env: { ...asBackend.env, BUGLE_API_KEY: 'x'.repeat(32) } };
    assert.match(await fails(['emit', 'all', ...note], FAILED, wrongKey), /UNAUTHENTICATED/);
    assert.match(await fails(['emit', 'all', 'connect'], FAILED, asBackend), /INVALID_ARGUMENT[^]*event: /);
    assert.match(await fails(['emit', 'all', 'note', '{x}'], USAGE, asBackend), /not JSON/);
  });
});

describe('bugle presence', () => {
  test('tells the counts, one user, several and all', async (t) => {
    await Device.connect(t, server.url, { token: server.token('present') });
    const ask = async (...args) => {
      const printed = await succeeds(['presence', ...args], asBackend);
      return printed.trim().split('\n').map((line) => JSON.parse(line));
    };
    const [counts] = await ask();
    assert.ok(counts.connections >= 1);
    const [user] = await ask('present');
    assert.deepEqual([user.online, user.connections.length], [true, 1]);
    const several = await ask('present', 'absent');
    assert.deepEqual(several.map(({ user_id, online }) => [user_id, online]), [['present', true], ['absent', false]]);
    assert.ok((await ask('--list')).some(({ user_id }) => user_id === 'present'));
  });
});

describe('exit codes', () => {
  test('help and the version are as asked', async () => {
    for (const args of [['--help'], ['--version'], ['serve', '--help']]) await succeeds(args);
  });

  test('wrong usage is 64', async () => {
    const wrong = [[], ['srve'], ['emit'], ['emit', 'user'], ['serve', '--config', '/nowhere.toml'], ['serve', '--port', '1']];
    for (const args of wrong) await fails(args, USAGE);
  });

  test('a server without keys does not start', async () => {
    assert.match(await fails(['serve'], USAGE), /auth\.jwt\.keys[^]*grpc\.api_keys|grpc\.api_keys[^]*auth\.jwt\.keys/);
  });

  test('what fails otherwise is 1', async () => {
    const nobody = { env: { ...asBackend.env, BUGLE_SERVER: '127.0.0.1:1' } };
    assert.match(await fails(['presence'], FAILED, nobody), /no Bugle answers/);
    const taken = { env: { BUGLE_CLIENTS__LISTEN: new URL(server.url).host } };
    const { code } = await bugle(['serve', ...WITH_FILE], taken);
    assert.equal(code, FAILED);
  });
});
