import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import jwt from 'jsonwebtoken';

import { BUGLE, cleanEnvironment, run } from './binary.js';
import { Arrivals, within } from './deadline.js';

export const RECIPE = fileURLToPath(new URL('../../../clients/recipes/cluster/', import.meta.url));
const PACKAGES = new URL('./recipe_packages.js', import.meta.url).href;
/** From the start of all processes, and a rolling restart of all nodes under load. */
const START = 60_000;
export const RESTART = 180_000;
/** Devices that a node takes in these tests: more than the load has. */
const CONNECTIONS = 80;
/** Each machine's last number, and the ports that it listens at. */
export const PORTS = { 1: [3000, 50051, 9090], 2: [3000, 50051, 9090], 3: [3000, 50051, 9090], 4: [6379], 5: [5432], 10: [8080, 50051] };

/** The script of the cluster recipe, at addresses of loopback and in a directory of the test's own. */
export class Cluster {
  lines = new Arrivals('a line of the recipe');
  #parent = mkdtempSync(join(tmpdir(), 'bugle-cluster-'));
  #child;
  #exited;

  static async start(context, proxy, env = {}) {
    const cluster = new Cluster(context, env);
    cluster.#run(proxy);
    const ended = cluster.#exited.then(([code]) => Promise.reject(new Error(`the recipe ended with ${code}`)));
    await Promise.race([cluster.lines.find((line) => line.startsWith('  files'), START), ended]);
    ended.catch(() => {});
    return cluster;
  }

  constructor(context, env = {}) {
    context.after(() => this.#remove());
    // PostgreSQL is another user, if it is root.
    chmodSync(this.#parent, 0o711);
    const byte = () => 1 + Math.floor(Math.random() * 250);
    // Above the addresses of the load's devices.
    this.net = `127.${100 + (byte() % 100)}.${byte()}`;
    this.url = `http://${this.net}.10:8080`;
    this.directory = join(this.#parent, 'cluster');
    this.env = {
      BUGLE,
      CLUSTER_NET: this.net,
      CLUSTER_DIRECTORY: this.directory,
      NODE_OPTIONS: `--import ${PACKAGES}`,
      RECIPE_PACKAGES: 'elsewhere',
      BUGLE_LIMITS__CONNECTIONS: `${CONNECTIONS}`,
      ...env,
    };
  }

  #run(proxy) {
    this.#child = spawn(join(RECIPE, 'run'), [proxy], { env: cleanEnvironment(this.env), stdio: ['ignore', 'pipe', 'inherit'] });
    this.#exited = once(this.#child, 'exit');
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.lines.push(line));
  }

  /** Runs another command of the script to its end: `{ code, stdout, stderr }`. */
  command(...args) {
    return run(join(RECIPE, 'run'), args, { env: this.env, timeout: RESTART });
  }

  /** A secret of this run. */
  secret(name) {
    return new RegExp(`${name}=(\\w+)`).exec(readFileSync(join(this.directory, 'secrets'), 'utf8'))[1];
  }

  token(user, claims = {}, expiresIn = '1h') {
    return jwt.sign({ sub: user, ...claims }, this.secret('JWT_SECRET'), { algorithm: 'HS256', expiresIn });
  }

  /** The process of a node. */
  pid(number) {
    return Number(readFileSync(join(this.directory, `bugle-${number}.pid`), 'utf8'));
  }

  /** As Ctrl-C does. */
  interrupt() {
    this.#child.kill('SIGINT');
  }

  /** The exit code. */
  async ended() {
    return (await within(this.#exited, 'the end of the recipe', START))[0];
  }

  /** Whether something listens at a port of a machine. */
  listens(machine, port) {
    const socket = connect(port, `${this.net}.${machine}`);
    const listens = once(socket, 'connect').then(() => true, ({ code }) => assert.equal(code, 'ECONNREFUSED') ?? false);
    return listens.finally(() => socket.destroy());
  }

  async assertNothingLeft() {
    assert.equal(existsSync(this.directory), false);
    for (const [machine, ports] of Object.entries(PORTS)) {
      for (const port of ports) assert.equal(await this.listens(machine, port), false, `${machine}:${port}`);
    }
  }

  async #remove() {
    if (this.#child) {
      this.#child.kill('SIGTERM');
      await this.#exited;
    }
    rmSync(this.#parent, { recursive: true });
  }
}
