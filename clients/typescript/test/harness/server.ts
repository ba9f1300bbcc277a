import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { onTestFinished } from 'vitest';

import { Backend } from './backend.js';
import { Configuration, type Keys } from './configuration.js';
import { Arrivals, within } from './deadline.js';

const BUGLE = process.env.BUGLE_BIN ?? join(import.meta.dirname, '../../../../target/release/bugle');

type Line = Record<string, unknown> & { message?: string };

/** `bugle serve`, run as a user runs it. */
export class Server {
  url!: string;
  backend!: Backend;
  readonly #log = new Arrivals<Line>('a line in the log');
  readonly #process: ChildProcess;
  readonly #exited: Promise<unknown[]>;
  #logged = '';

  /** Starts a server that ends with the test. */
  static async start(keys: Keys = {}): Promise<Server> {
    const configuration = new Configuration(keys);
    onTestFinished(() => configuration.remove());
    return Server.run(configuration);
  }

  /** Starts a server with the configuration of one that has ended, and ends it with the test. */
  static async run(configuration: Configuration): Promise<Server> {
    const server = new Server(configuration);
    onTestFinished(() => server.kill());
    await server.#listening();
    return server;
  }

  private constructor(readonly configuration: Configuration) {
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith('BUGLE_'));
    this.#process = spawn(BUGLE, ['serve', '--config', configuration.path], {
      env: Object.fromEntries(own),
      cwd: configuration.directory,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#exited = once(this.#process, 'exit');
    createInterface({ input: this.#process.stderr! }).on('line', (line) => {
      this.#logged += `${line}\n`;
      this.#log.push(parsed(line));
    });
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  token(user: string, seconds?: number): string {
    return this.configuration.token(user, seconds);
  }

  async kill(): Promise<void> {
    this.backend?.close();
    this.#process.kill('SIGKILL');
    await within(this.#exited, 'the end of the process');
  }

  async #listening(): Promise<void> {
    const exited = this.#exited.then(([code]) => Promise.reject(new Error(`bugle ended with ${code}:\n${this.#logged}`)));
    const line = await Promise.race([this.#log.find(({ message }) => message === 'listening'), exited]);
    this.url = `http://${line['clients.listen']}`;
    this.backend = new Backend(String(line['grpc.listen']), this.configuration.apiKey);
  }
}

function parsed(line: string): Line {
  try {
    return JSON.parse(line) as Line;
  } catch {
    return { message: line };
  }
}
