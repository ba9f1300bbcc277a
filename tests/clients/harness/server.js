import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { Backend } from './backend.js';
import { BUGLE, cleanEnvironment } from './binary.js';
import { Configuration } from './configuration.js';
import { Arrivals, within } from './deadline.js';

/** `bugle serve`, run as a user runs it. */
export class Server {
  /** What it logs, a parsed line each. */
  log = new Arrivals('a line in the log');
  /** All that it has logged, as it stands. */
  logged = '';
  #process;
  #exited;

  /** Starts a server with these configuration keys, and stops it after the file or test. */
  static async start(context, keys) {
    const configuration = new Configuration(keys);
    context.after(() => configuration.remove());
    const server = await Server.run(configuration);
    context.after(() => server.kill());
    return server;
  }

  /** Starts a server that whoever asks for it ends. */
  static async run(configuration) {
    const server = new Server(configuration);
    try {
      await server.#listening();
    } catch (error) {
      await server.kill();
      throw new Error(`bugle did not start:\n${server.logged}`, { cause: error });
    }
    return server;
  }

  constructor(configuration) {
    this.configuration = configuration;
    this.#process = spawn(BUGLE, ['serve', '--config', configuration.path], {
      env: cleanEnvironment(configuration.environment),
      cwd: configuration.directory,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#exited = once(this.#process, 'exit');
    createInterface({ input: this.#process.stderr }).on('line', (line) => {
      this.logged += `${line}\n`;
      this.log.push(parsed(line));
    });
  }

  async #listening() {
    const exited = this.#exited.then(([code]) => Promise.reject(new Error(`exit code ${code}`)));
    const line = await Promise.race([this.log.find((line) => line.message === 'listening'), exited]);
    this.url = `http://${line['clients.listen']}`;
    this.adminUrl = `http://${line['admin.listen']}`;
    this.grpcAddress = line['grpc.listen'];
    this.backend = new Backend(this.grpcAddress, this.configuration.apiKey);
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  token(user, claims, expiresIn) {
    return this.configuration.token(user, claims, expiresIn);
  }

  /** As a service manager stops it. */
  terminate() {
    this.#process.kill('SIGTERM');
  }

  /** The exit code, once the process has ended. */
  async exited(milliseconds = 30_000) {
    const [code, signal] = await within(this.#exited, 'the end of the process', milliseconds);
    return code ?? signal;
  }

  async kill() {
    this.backend?.close();
    this.#process.kill('SIGKILL');
    await this.#exited.catch(() => {});
  }
}

function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return { message: line };
  }
}
