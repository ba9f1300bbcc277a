import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { Arrivals } from './deadline.js';

const PYTHON = fileURLToPath(new URL('../.venv/bin/python', import.meta.url));
const DEVICE = fileURLToPath(new URL('../python_device.py', import.meta.url));

/** A device in Python. */
export class PythonDevice {
  /** What it tells, in order. */
  told;
  #process;

  /** Starts it, and stops it after the test. `seen`: the positions with which it resumes. `tell`: gets each line instead of `told`. */
  static run(context, url, transports, token, options = {}) {
    const device = new PythonDevice(url, transports, token, options);
    context.after(() => device.kill());
    return device;
  }

  constructor(url, transports, token, { seen, tell = (line) => this.told.push(line) }) {
    this.told = new Arrivals(`python-socketio by ${transports}`);
    const resume = seen === undefined ? [] : [JSON.stringify(seen)];
    this.#process = spawn(PYTHON, [DEVICE, url, transports, token, ...resume], { stdio: ['ignore', 'pipe', 'inherit'] });
    createInterface({ input: this.#process.stdout }).on('line', (line) => tell(JSON.parse(line)));
  }

  /** Has it disconnect, as a program does that ends well. */
  disconnect() {
    this.#process.kill('SIGINT');
  }

  kill() {
    this.#process.kill('SIGKILL');
  }
}
