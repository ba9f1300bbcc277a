import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { Arrivals, within } from './deadline.js';

/** A server as a child process, which logs lines of JSON on standard error, and in one of them where it listens. */
export class Program {
  /** What it logs, a parsed line each. */
  log = new Arrivals('a line in the log');
  /** All that it has logged, as it stands. */
  logged = '';
  #process;
  #exited;

  constructor(command, args, options) {
    this.#process = spawn(command, args, { ...options, stdio: ['ignore', 'ignore', 'pipe'] });
    this.#exited = once(this.#process, 'exit');
    // Who waits for it hears of a command that cannot be run.
    this.#exited.catch(() => {});
    createInterface({ input: this.#process.stderr }).on('line', (line) => {
      this.logged += `${line}\n`;
      this.log.push(parsed(line));
    });
  }

  get pid() {
    return this.#process.pid;
  }

  /** The line that says where it listens. */
  async listening() {
    const exited = this.#exited.then(([code]) => Promise.reject(new Error(`exit code ${code}`)));
    const line = await Promise.race([this.log.find((line) => line.message === 'listening'), exited]);
    this.url = `http://${line['clients.listen']}`;
    this.adminUrl = `http://${line['admin.listen']}`;
    this.grpcAddress = line['grpc.listen'];
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

  /** Whether the process is still there. */
  get runs() {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  async kill() {
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
