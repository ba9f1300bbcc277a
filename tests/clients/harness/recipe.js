import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import jwt from 'jsonwebtoken';

import { BUGLE, cleanEnvironment, run } from './binary.js';
import { Arrivals, within } from './deadline.js';
import { Server } from './server.js';

const RECIPES = fileURLToPath(new URL('../../../clients/recipes/', import.meta.url));
const PACKAGES = new URL('recipe_packages.js', import.meta.url).href;
const PYTHON = fileURLToPath(new URL('../.venv/bin/python', import.meta.url));

/** What runs a recipe's program, by the end of its name; others are run as they are. */
const RUNNERS = { '.mjs': [process.execPath, '--import', PACKAGES], '.py': [PYTHON, '-u'] };

/**
 * A recipe's own bugle.toml, to the letter. Keys and ports come by the environment, and so does what a test says otherwise. Relative
 * paths in it, such as those of logs, are in a directory of the test's own.
 */
class RecipeConfiguration {
  /** The key of the test itself, which may do everything. */
  apiKey = randomBytes(24).toString('hex');
  /** The key of the recipe's backend. */
  backendKey = randomBytes(24).toString('hex');
  secret = randomBytes(24).toString('hex');
  directory = mkdtempSync(join(tmpdir(), 'bugle-recipe-'));

  constructor(name, { scopes, environment }) {
    this.path = join(RECIPES, name, 'bugle.toml');
    this.environment = {
      BUGLE_CLIENTS__LISTEN: '127.0.0.1:0',
      BUGLE_GRPC__LISTEN: '127.0.0.1:0',
      BUGLE_ADMIN__LISTEN: '127.0.0.1:0',
      BUGLE_LOG__FORMAT: 'json',
      ...apiKey(0, 'backend', this.backendKey, scopes),
      ...apiKey(1, 'tests', this.apiKey, 'emit,presence,rooms,disconnect,mailbox'),
      BUGLE_AUTH__JWT__KEYS__0__ALGORITHM: 'HS256',
      BUGLE_AUTH__JWT__KEYS__0__SECRET: this.secret,
      ...environment,
    };
  }

  /** A token as an application's own login service signs it. `expiresIn` is in seconds or a text such as '1h'. */
  token(user, claims = {}, expiresIn = '1h') {
    return jwt.sign({ sub: user, ...claims }, this.secret, { algorithm: 'HS256', expiresIn });
  }

  remove() {
    rmSync(this.directory, { recursive: true });
  }
}

function apiKey(number, name, key, scopes) {
  const entry = `BUGLE_GRPC__API_KEYS__${number}__`;
  return { [`${entry}NAME`]: name, [`${entry}KEY`]: key, [`${entry}SCOPES`]: scopes };
}

/** A recipe that runs: Bugle with the recipe's configuration, and the recipe's programs when they are asked for. */
export class Recipe {
  #name;

  /**
   * Starts Bugle, and stops it after the file or test. `scopes`: what the backend's API key may do, as README and `run` have it.
   * `environment`: variables for Bugle, such as `{ BUGLE_AUTH__JWT__LEEWAY: '0s' }`.
   */
  static async start(context, name, { scopes, environment = {} }) {
    const configuration = new RecipeConfiguration(name, { scopes, environment });
    context.after(() => configuration.remove());
    const server = await Server.run(configuration);
    context.after(() => server.kill());
    return new Recipe(name, configuration, server);
  }

  constructor(name, configuration, server) {
    this.#name = name;
    this.configuration = configuration;
    this.server = server;
  }

  token(...args) {
    return this.configuration.token(...args);
  }

  /** What a program needs to be a backend. Secrets are in there: not for devices. */
  get backendEnvironment() {
    return {
      BUGLE,
      BUGLE_SERVER: `http://${this.server.grpcAddress}`,
      BUGLE_API_KEY: this.configuration.backendKey,
    };
  }

  /** Starts device.mjs (or what else is named), and stops it after the test. */
  device(context, args, { program = 'device.mjs', env } = {}) {
    return Program.start(context, this.#command(program, args), { env });
  }

  /** Starts the backend, and stops it after the file or test. */
  backend(context, program, args = [], { env } = {}) {
    return Program.start(context, this.#command(program, args), { env: { ...this.backendEnvironment, ...env } });
  }

  /** Runs the backend to its end: `{ code, stdout, stderr }`. */
  call(program, args = [], { env, input } = {}) {
    const [command, ...rest] = this.#command(program, args);
    return run(command, rest, { input, env: { ...this.backendEnvironment, ...env } });
  }

  #command(program, args) {
    const runner = RUNNERS[extname(program)] ?? [];
    return [...runner, join(RECIPES, this.#name, program), ...args];
  }

  /** The lines, past and coming, of a file of JSON lines that Bugle writes into its directory, such as 'audit.log'. */
  follow(context, file) {
    const path = join(this.configuration.directory, file);
    return Program.start(context, ['tail', '-n', '+1', '-F', '--quiet', path]).lines;
  }

  /** A counter or gauge: the sum of those that have this name and these labels, among others. */
  async metric(name, labels = {}) {
    const answer = await fetch(`${this.server.adminUrl}/metrics`);
    const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
    return (await answer.text())
      .split('\n')
      .filter((line) => /^\w+/.exec(line)?.[0] === name && wanted.every((label) => line.includes(label)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  }
}

/** A program of a recipe, which prints a JSON line for each thing that happens to it, and may take JSON lines. */
export class Program {
  /** What it printed, in order. */
  lines;
  #child;
  #exited;

  static start(context, command, { env } = {}) {
    const program = new Program(command, env);
    context.after(() => program.kill());
    return program;
  }

  constructor([command, ...args], env) {
    this.lines = new Arrivals(`a line of ${[command, ...args].find((part) => part.startsWith(RECIPES)) ?? command}`);
    this.#child = spawn(command, args, { env: cleanEnvironment(env), stdio: ['pipe', 'pipe', 'inherit'] });
    this.#exited = once(this.#child, 'close');
    this.#child.stdin.on('error', () => {});
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.lines.push(JSON.parse(line)));
  }

  /** Writes a line to its standard input. */
  tell(line) {
    this.#child.stdin.write(`${JSON.stringify(line)}\n`);
  }

  /** The next line that has this key, such as `{ event: 'note', payload: 1 }` for 'event' (and 'note'); others are passed over. */
  next(key, value, milliseconds) {
    return this.lines.find((line) => key in line && (value === undefined || line[key] === value), milliseconds);
  }

  /** As whoever runs it stops it; its exit code. */
  async stop(signal = 'SIGTERM') {
    this.#child.kill(signal);
    return this.exited();
  }

  /** The exit code, or the signal that ended it. */
  async exited(milliseconds) {
    const [code, signal] = await within(this.#exited, 'the end of the program', milliseconds);
    return code ?? signal;
  }

  async kill() {
    this.#child.kill('SIGKILL');
    await this.#exited.catch(() => {});
  }

  /** Sends it a signal, such as SIGSTOP. */
  signal(name) {
    this.#child.kill(name);
  }
}
