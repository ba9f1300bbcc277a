import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

import { Configuration } from '../../clients/harness/configuration.js';
import { Server } from '../../clients/harness/server.js';
import { readDescriptors, readMemory } from './process.js';
import { Nginx, PROXY } from './proxy.js';

const HONEST = 100;
/** The user for whom something large is retained. */
const READER = 'reader';
const WITNESS = fileURLToPath(new URL('witness.js', import.meta.url));
const ATTACKER = fileURLToPath(new URL('attacker.js', import.meta.url));

/** A megabyte that does not become smaller. */
function noise() {
  return randomBytes(750_000).toString('base64');
}

/** A server with the default limits, nginx before it, and its honest devices. */
export class World {
  #configuration;
  #server;
  #nginx;
  #witness;
  #attackers = new Set();

  static async start({ honest = HONEST } = {}) {
    const world = new World();
    try {
      await world.#start(honest);
    } catch (error) {
      await world.stop();
      throw error;
    }
    return world;
  }

  async #start(honest) {
    this.#configuration = new Configuration({
      'auth.rooms': ['bench:{claim.bench}'],
      'clients.trusted_proxies': [PROXY],
      websocket: [{ path: '/ws', events: ['*'] }],
    });
    this.#server = await Server.run(this.#configuration);
    await this.#server.backend.emit(READER, 'large', { json: JSON.stringify(noise()) }, { retain: true });
    this.#nginx = await Nginx.start(this.#server.port);
    this.#witness = fork(WITNESS);
    const tokens = Array.from({ length: honest }, (_, number) => this.#server.token(`honest-${number}`, { bench: 'witness' }));
    const { url, adminUrl, grpcAddress } = this.#server;
    this.#witness.send({ begin: { url, adminUrl, grpcAddress, apiKey: this.#configuration.apiKey, tokens } });
    await once(this.#witness, 'message');
  }

  /** Resident memory in MiB. */
  memory() {
    return readMemory(this.#server.pid);
  }

  descriptors() {
    return readDescriptors(this.#server.pid);
  }

  /** What the honest devices have noticed since the last report. */
  async witnessed() {
    this.#witness.send({});
    const [{ report }] = await once(this.#witness, 'message');
    return report;
  }

  /** Starts an attack. */
  attack(name, { via, hasToken }) {
    const port = via === 'nginx' ? this.#nginx.port : this.#server.port;
    const tokens = Array.from({ length: 10 }, (_, number) => this.#server.token(`stranger-${number}`));
    const target = {
      port,
      grpc: Number(this.#server.grpcAddress.split(':').at(-1)),
      admin: Number(new URL(this.#server.adminUrl).port),
      token: hasToken ? tokens[0] : undefined,
      tokens,
      reader: this.#server.token(READER),
    };
    const attacker = new Attacker(name, target);
    this.#attackers.add(attacker);
    return attacker;
  }

  /** Sends SIGTERM and returns the seconds until the process has ended. */
  async terminate() {
    const at = performance.now();
    this.#server.terminate();
    await this.#server.exited(60_000);
    return (performance.now() - at) / 1_000;
  }

  /** Lines of the log at level WARN or above. */
  warnings() {
    return this.#server.logged.split('\n').filter((line) => /"level":"(WARN|ERROR)"/i.test(line));
  }

  async stop() {
    for (const attacker of this.#attackers) attacker.leave();
    this.#witness?.kill('SIGKILL');
    await this.#nginx?.stop();
    await this.#server?.kill();
    this.#configuration?.remove();
  }
}

/** A process that attacks. */
class Attacker {
  #process = fork(ATTACKER);
  #finished;

  constructor(name, target) {
    this.#process.setMaxListeners(0);
    this.#finished = this.#answer((message) => 'done' in message || 'failed' in message);
    this.#process.send({ start: name, target });
  }

  /** What it says when it has sent everything, or undefined after so many milliseconds. */
  async finished(within) {
    const message = await Promise.race([this.#finished, sleep(within, { done: `not done in ${within / 1_000} s` })]);
    if ('failed' in message) throw new Error(message.failed);
    return message.done;
  }

  /** How many of its connections are open. */
  async alive() {
    const answer = this.#answer((message) => 'alive' in message);
    this.#process.send({});
    return (await answer).alive;
  }

  /** Ends all its connections. */
  leave() {
    this.#process.kill('SIGKILL');
  }

  #answer(isWanted) {
    return new Promise((resolve) => {
      const listener = (message) => {
        if (!isWanted(message)) return;
        this.#process.off('message', listener);
        resolve(message);
      };
      this.#process.on('message', listener);
    });
  }
}
