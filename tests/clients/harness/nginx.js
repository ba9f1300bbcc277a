import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { run } from './binary.js';
import { Arrivals } from './deadline.js';
import { freePorts } from './free_ports.js';

/** Real nginx with TLS by a configuration file, and a certificate made for it. */
export class Nginx {
  #directory = mkdtempSync(join(tmpdir(), 'bugle-nginx-'));
  #process;
  #exited;
  #errors = new Arrivals('a line of nginx');

  /**
   * Starts it, and stops it after the test. It listens at a free port instead of `port`, and asks the ports that `upstreams`
   * names for those in the file, such as `{ 3000: 28123 }`.
   */
  static async before(context, file, port, upstreams) {
    const nginx = new Nginx();
    context.after(() => nginx.#remove());
    await nginx.#start(file, port, upstreams);
    return nginx;
  }

  async #start(file, writtenPort, upstreams) {
    // Its workers are somebody else, if it is root.
    chmodSync(this.#directory, 0o711);
    const [port] = await freePorts(1);
    const text = withPorts(readFileSync(file, 'utf8'), { ...upstreams, [writtenPort]: port });
    const path = join(this.#directory, 'nginx.conf');
    writeFileSync(path, text);
    await this.#makeCertificate();
    this.#process = spawn('nginx', ['-p', this.#directory, '-c', path], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#exited = once(this.#process, 'exit');
    createInterface({ input: this.#process.stderr }).on('line', (line) => this.#errors.push(line));
    this.url = `https://127.0.0.1:${port}`;
    await this.#answers(port);
  }

  async #makeCertificate() {
    this.certificate = join(this.#directory, 'certificate.pem');
    const files = ['-keyout', join(this.#directory, 'key.pem'), '-out', this.certificate];
    const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    const { code, stderr } = await run('openssl', ['req', '-x509', ...key, '-days', '1', ...subject, ...files]);
    if (code !== 0) throw new Error(`openssl: ${stderr}`);
  }

  /** nginx says nothing when it listens. */
  async #answers(port) {
    let over;
    this.#exited.then(() => (over = true));
    while (!over) {
      const stream = connect(port, '127.0.0.1');
      const answered = await once(stream, 'connect').then(() => true, () => false);
      stream.destroy();
      if (answered) return;
      await new Promise(setImmediate);
    }
    throw new Error(`nginx did not start: ${this.#errors.drain().join('\n')}`);
  }

  /** Waits until it has logged requests with each of these texts, which it does after they were answered; the whole log. */
  async logged(texts) {
    const path = join(this.#directory, 'access.log');
    const tail = spawn('tail', ['-n', '+1', '-F', '--quiet', path], { stdio: ['ignore', 'pipe', 'ignore'] });
    const lines = new Arrivals('a line of the access log');
    createInterface({ input: tail.stdout }).on('line', (line) => lines.push(line));
    try {
      const missing = new Set(texts);
      while (missing.size > 0) {
        const line = await lines.next();
        for (const text of missing) if (line.includes(text)) missing.delete(text);
      }
      return readFileSync(path, 'utf8');
    } finally {
      tail.kill();
    }
  }

  async #remove() {
    this.#process?.kill('SIGTERM');
    await this.#exited;
    rmSync(this.#directory, { recursive: true });
  }
}

/** The text of a configuration with other ports of 127.0.0.1, each of which it must name. All change at once: one may be the beginning of another. */
function withPorts(text, ports) {
  const missing = new Set(Object.keys(ports));
  const changed = text.replace(/127\.0\.0\.1:(\d+)/g, (address, written) => {
    missing.delete(written);
    return `127.0.0.1:${ports[written] ?? written}`;
  });
  if (missing.size > 0) throw new Error(`the configuration names no port ${[...missing].join(', ')}`);
  return changed;
}
