import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { freePorts } from '../../clients/harness/free_ports.js';
import { Program } from '../../clients/harness/program.js';

/** Debian installs it outside of the PATH of ordinary users. */
export const NGINX = process.env.NGINX ?? '/usr/sbin/nginx';
/** Where devices open WebSockets, and where emits are posted. */
export const [SUBSCRIBE, PUBLISH] = ['/subscribe', '/publish'];
const ATTEMPTS = 100;

/** nginx with nchan, in a directory of its own: a master and one worker. */
export class Nchan extends Program {
  #port;
  #directory;

  static async prepare() {
    const [port] = await freePorts(1);
    const directory = mkdtempSync(join(tmpdir(), 'bugle-peers-nginx-'));
    // If this is root, the worker has another user.
    chmodSync(directory, 0o711);
    const path = join(directory, 'nginx.conf');
    writeFileSync(path, configuration(port));
    return new Nchan(port, directory, path);
  }

  constructor(port, directory, path) {
    super(NGINX, ['-p', directory, '-c', path, '-e', 'stderr'], {});
    this.#port = port;
    this.#directory = directory;
  }

  /** nginx does not log that it listens. */
  async listening() {
    this.url = `http://127.0.0.1:${this.#port}`;
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      if (!this.runs) throw new Error('nginx has ended');
      if (await answers(this.#port)) return;
      await sleep(50);
    }
    throw new Error('nginx does not listen');
  }

  /** Stops it by SIGTERM: a master that is killed leaves its worker behind. */
  async kill() {
    this.terminate();
    if (this.runs) await this.exited().catch(() => super.kill());
  }

  remove() {
    rmSync(this.#directory, { recursive: true });
  }
}

async function answers(port) {
  const socket = connect(port, '127.0.0.1');
  const has = await once(socket, 'connect').then(() => true, () => false);
  socket.destroy();
  return has;
}

function configuration(port) {
  return `load_module ${modulesPath()}/ngx_nchan_module.so;
daemon off; pid nginx.pid; worker_processes 1;
events { worker_connections 20000; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  # The publisher keeps its connection.
  keepalive_requests 1000000;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    nchan_channel_id bench;
    # As in a room of Bugle, a device receives only what is sent after it has joined.
    nchan_store_messages off;
    location = ${SUBSCRIBE} { nchan_subscriber websocket; }
    location = ${PUBLISH} { nchan_publisher; }
  }
}
`;
}

function modulesPath() {
  const { stderr = '', error } = spawnSync(NGINX, ['-V'], { encoding: 'utf8' });
  if (error) throw error;
  return /--modules-path=(\S+)/.exec(stderr)?.[1] ?? '/usr/lib/nginx/modules';
}
