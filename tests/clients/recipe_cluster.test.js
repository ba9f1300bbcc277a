import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';

import { Verdict } from '../../clients/recipes/cluster/load/verdict.mjs';
import { BUGLE, run } from './harness/binary.js';
import { Cluster, PORTS, RECIPE, RESTART } from './harness/cluster.js';
import { within } from './harness/deadline.js';
import { Device, KINDS } from './harness/device.js';

/** A stand-in for Bugle, with this shell command as its end: it runs Bugle, and hands SIGTERM on. */
function standIn(t, end) {
  const directory = mkdtempSync(join(tmpdir(), 'bugle-stand-in-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'bugle');
  writeFileSync(file, `#!/bin/sh\n"${BUGLE}" "$@" &\ntrap 'kill $!; wait $!; ${end}' TERM\nwait\n`, { mode: 0o755 });
  return file;
}

/** Sends a request from an address of loopback: the status and the body. */
async function ask(url, localAddress, { method = 'GET', body } = {}) {
  const sent = request(url, { method, agent: new Agent(), localAddress, headers: { 'content-type': 'text/plain' } });
  sent.end(body);
  const [response] = await within(once(sent, 'response'), url);
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part;
  return { status: response.statusCode, text };
}

for (const proxy of ['nginx', 'haproxy']) {
  describe(`three nodes behind ${proxy}`, async () => {
    const cluster = await Cluster.start({ after }, proxy);
    const polling = (sid) => `${cluster.url}/socket.io/?EIO=4&transport=polling${sid ? `&sid=${sid}` : ''}`;

    test('a session that polls is found from every address, without a cookie', async () => {
      const addresses = Array.from({ length: 12 }, (_, number) => `127.1.9.${number + 1}`);
      const sessions = await Promise.all(
        addresses.map(async (address) => JSON.parse((await ask(polling(), address)).text.slice(1)).sid),
      );
      // A pong, from the address that opened the session, and from one that it has moved to.
      for (const [number, sid] of sessions.entries()) {
        for (const address of [addresses[number], addresses[(number + 1) % addresses.length], '127.1.8.1']) {
          const answer = await ask(polling(sid), address, { method: 'POST', body: '3' });
          assert.deepEqual(answer, { status: 200, text: 'ok' }, `${sid} from ${address}`);
        }
      }
    });

    test('what no node knows is refused as Bugle refuses it', async () => {
      const { status, text } = await ask(polling('AAAAAAAAAAAAAAAA'), '127.1.9.1');
      assert.deepEqual([status, JSON.parse(text)], [400, { code: 1, message: 'Session ID unknown' }]);
    });

    for (const { client, way } of KINDS) {
      test(`a ${client} device comes in by ${way}, and gets what each node emits`, async (t) => {
        const user = `${client} ${way}`;
        const device = await Device.connect(t, cluster.url, { client, way, token: cluster.token(user) });
        // The last one is the proxy.
        for (const machine of [1, 2, 3, 10]) {
          const env = { BUGLE_API_KEY: cluster.secret('BUGLE_API_KEY'), BUGLE_SERVER: `http://${cluster.net}.${machine}:50051` };
          const { code, stderr } = await run(BUGLE, ['emit', 'user', user, 'note', `${machine}`], { env });
          assert.equal(code, 0, stderr);
          assert.deepEqual(await device.heard('note').next(), [machine]);
        }
      });
    }

    test('a rolling restart under load loses nothing', { timeout: RESTART }, async () => {
      const { code, stdout, stderr } = await cluster.command('rolling-restart', '--load', '60');
      assert.equal(code, 0, `${stdout}${stderr}`);
      for (const number of [1, 2, 3]) assert.match(stdout, new RegExp(`bugle-${number}: .* ready again after`));
      assert.match(stdout, /Every message came to every device, once and in order/);
    });

    test('a device that comes while all nodes are full disturbs no session', async () => {
      const sessions = [];
      for (let number = 1; number <= 30; number += 1) {
        const address = `127.1.7.${number}`;
        sessions.push({ address, sid: JSON.parse((await ask(polling(), address)).text.slice(1)).sid });
      }
      for (const number of [1, 2, 3]) {
        const node = polling().replace(cluster.url, `http://${cluster.net}.${number}:3000`);
        for (let status = 200; status !== 503; ) ({ status } = await ask(node, '127.1.8.1'));
      }
      for (const { address, sid } of sessions) {
        const { status: refused } = await ask(polling(), address);
        const { status: pong } = await ask(polling(sid), address, { method: 'POST', body: '3' });
        assert.deepEqual({ refused, pong }, { refused: 503, pong: 200 });
      }
    });

    test('Ctrl-C ends all of it, and nothing is left', async () => {
      for (const [machine, ports] of Object.entries(PORTS)) {
        for (const port of ports) assert.equal(await cluster.listens(machine, port), true, `${machine}:${port}`);
      }
      cluster.interrupt();
      assert.equal(await cluster.ended(), 130);
      await cluster.assertNothingLeft();
    });
  });
}

describe('faults of the nodes', () => {
  for (const args of [['nginx'], ['rolling-restart', '--load', '60']]) {
    test(`run ${args.join(' ')} ends with an error if no node starts, and leaves nothing`, async (t) => {
      const cluster = new Cluster(t, { BUGLE: '/bin/false' });
      const { code, stderr } = await cluster.command(...args);
      assert.equal(code, 1, stderr);
      assert.match(stderr, /bugle-\d ended with 1: see .*\/bugle-\d\.log\n$/);
      await cluster.assertNothingLeft();
    });
  }

  test('the last line is why it ended, though other nodes then end with errors', async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'bugle-stand-in-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const file = join(directory, 'bugle');
    const lines = ['#!/bin/sh', 'trap "exit 2" TERM', '[ "$BUGLE_CLUSTER__NODE" != bugle-1 ] || exit 1', 'while :; do sleep 0.05; done', ''];
    writeFileSync(file, lines.join('\n'), { mode: 0o755 });
    const { code, stderr } = await new Cluster(t, { BUGLE: file }).command('nginx');
    assert.equal(code, 1, stderr);
    assert.match(stderr, /bugle-1 ended with 1: see .*\/bugle-1\.log\n$/);
    assert.doesNotMatch(stderr, /ended with 2/);
  });

  test('a rolling restart fails if a node ends with an error, and Ctrl-C ends all of it nevertheless', async (t) => {
    const cluster = await Cluster.start(t, 'nginx', { BUGLE: standIn(t, 'exit 3') });
    const { code, stdout, stderr } = await cluster.command('rolling-restart');
    assert.equal(code, 1, stderr);
    assert.match(stderr, /bugle-1 ended with 3: see .*\/bugle-1\.log\n$/);
    assert.doesNotMatch(stdout, /ready again/);
    cluster.interrupt();
    assert.equal(await cluster.ended(), 130);
    await cluster.assertNothingLeft();
  });

  test('a second Ctrl-C kills a node that does not stop', async (t) => {
    const cluster = await Cluster.start(t, 'nginx');
    process.kill(cluster.pid(3), 'SIGSTOP');
    cluster.interrupt();
    // The proxy is stopped first, then the third node.
    while (await cluster.listens(10, 8080)) await delay(20);
    cluster.interrupt();
    assert.equal(await cluster.ended(), 130);
    await cluster.assertNothingLeft();
  });
});

describe("a directory that is another user's, or that others can write", () => {
  /** What an attacker leaves there. */
  function forge(cluster, mode) {
    const marker = join(cluster.directory, 'marker');
    mkdirSync(cluster.directory);
    writeFileSync(join(cluster.directory, 'secrets'), `BUGLE_API_KEY=$(touch ${marker})\ntouch ${marker}\n`);
    for (const number of [1, 2, 3]) writeFileSync(join(cluster.directory, `bugle-${number}.pid`), `${process.pid}`);
    chmodSync(cluster.directory, mode);
    return marker;
  }

  for (const args of [[], ['--load', '3']]) {
    test(`is refused by rolling-restart ${args.join(' ')}`, async (t) => {
      const cluster = new Cluster(t);
      const marker = forge(cluster, 0o770);
      const { code, stderr } = await cluster.command('rolling-restart', ...args);
      assert.equal(code, 1);
      assert.match(stderr, /is not a directory that only you can write/);
      assert.equal(existsSync(marker), false);
    });
  }

  test('of the user is neither executed nor believed', async (t) => {
    const cluster = new Cluster(t);
    const marker = forge(cluster, 0o711);
    const { code, stderr } = await cluster.command('rolling-restart');
    assert.equal(code, 1);
    // This process lives.
    assert.match(stderr, /bugle-1 does not run/);
    await cluster.command('rolling-restart', '--load', '3');
    assert.equal(existsSync(marker), false);
  });
});

describe('the verdict on a load', () => {
  const emitted = { stored: 1, history: 1, repeated: 0 };
  const device = { away: [1_200], delays: [3, 900], disordered: 0, failed: 0, lost: 0, told: 0, twice: 0 };
  const isGood = (changed) => new Verdict(emitted, [[device, { ...device, ...changed }]], ['polling']).isGood;

  test('is good if every device has every message once, in order, and was not away for long', () => {
    assert.equal(isGood({}), true);
    assert.equal(isGood({ told: 1 }), true);
  });

  for (const [fault, changed] of Object.entries({
    'a lost message': { lost: 1 },
    'a message that came twice': { twice: 1 },
    'another order': { disordered: 1 },
    'a device that was away for more than 5 s': { away: [5_001] },
    'a device that did not come back': { away: [null] },
  })) {
    test(`is not good for ${fault}`, () => assert.equal(isGood(changed), false));
  }
});

describe('compose.yaml', async () => {
  const secrets = { BUGLE_API_KEY: 'a', JWT_SECRET: 'b', REDIS_PASSWORD: 'c', POSTGRES_PASSWORD: 'd' };
  const text = readFileSync(join(RECIPE, 'compose.yaml'), 'utf8');
  const hasPlugin = await run('docker', ['compose', 'version']).then(({ code }) => code === 0, () => false);
  const [command, ...compose] = hasPlugin ? ['docker', 'compose'] : ['docker-compose'];

  /** What Compose says of a file in place of the recipe's. */
  async function config(t, content, env = secrets) {
    const directory = mkdtempSync(join(tmpdir(), 'bugle-compose-'));
    t.after(() => rmSync(directory, { recursive: true }));
    writeFileSync(join(directory, 'compose.yaml'), content);
    const args = ['-f', join(directory, 'compose.yaml'), '--profile', 'nginx', '--profile', 'haproxy', 'config'];
    return run(command, [...compose, ...args], { env });
  }

  test('is accepted by Compose, with all services', async (t) => {
    const { code, stdout, stderr } = await config(t, text);
    assert.equal(code, 0, stderr);
    for (const service of ['bugle-1', 'bugle-2', 'bugle-3', 'redis', 'postgres', 'nginx', 'haproxy']) {
      assert.match(stdout, new RegExp(`^  ${service}:$`, 'm'));
    }
  });

  for (const [fault, content, env] of [
    ['an indentation that is wrong', text.replace('    image: redis:7', '     image: redis:7')],
    ['a key that no service has', text.replace('image: redis:7', 'imagine: redis:7')],
    ['a service that is not there', text.replace('depends_on: [bugle-1', 'depends_on: [bugle-0')],
    ['a volume that is not there', text.replace('- redis:/data', '- data:/data')],
    ['a secret that is missing', text, { ...secrets, JWT_SECRET: '' }],
  ]) {
    test(`is refused by Compose with ${fault}`, async (t) => {
      if (!env) assert.notEqual(content, text);
      assert.notEqual((await config(t, content, env)).code, 0);
    });
  }

  test('gives the engine, like `run`, the ACL user of the main README', async () => {
    const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
    const [, rights] = /^user bugle on >PASSWORD (.*)$/m.exec(readme);
    const words = (file) => readFileSync(join(RECIPE, file), 'utf8').replace(/["'\\,\s]+/g, ' ');
    assert.ok(words('compose.yaml').includes(`--user bugle on >\${REDIS_PASSWORD:?} ${rights}]`));
    assert.ok(words('run').includes(`user bugle on >$REDIS_PASSWORD ${rights} `));
  });

  test('mounts files that are there, and names every machine of the proxies', () => {
    const mounted = [...text.matchAll(/- \.\/([\w.]+):/g)].map(([, file]) => file);
    assert.deepEqual([...new Set(mounted)].sort(), ['bugle.toml', 'haproxy.cfg', 'nginx.conf', 'redis.conf']);
    for (const file of mounted) assert.ok(existsSync(join(RECIPE, file)), file);
    for (const file of ['nginx.conf', 'haproxy.cfg']) {
      const machines = [...readFileSync(join(RECIPE, file), 'utf8').matchAll(/\b(bugle-\d|proxy):\d/g)].map(([, name]) => name);
      assert.deepEqual([...new Set(machines)].sort(), ['bugle-1', 'bugle-2', 'bugle-3', 'proxy']);
      for (const name of machines) assert.match(text, new RegExp(`^  (${name}:|hostname: ${name})$`, 'm'));
    }
  });
});
