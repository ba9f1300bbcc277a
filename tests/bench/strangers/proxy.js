import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { freePorts } from '../../clients/harness/free_ports.js';

/** The address from which nginx connects to Bugle: the only trusted proxy. */
export const PROXY = '127.0.0.9';

/** nginx before Bugle, as patient as it can be: its own limits must not help. */
export class Nginx {
  #directory = mkdtempSync(join(tmpdir(), 'bugle-strangers-nginx-'));
  #process;

  static async start(upstream) {
    const nginx = new Nginx();
    [nginx.port] = await freePorts(1);
    await nginx.#start(upstream);
    return nginx;
  }

  async #start(upstream) {
    chmodSync(this.#directory, 0o711);
    const path = join(this.#directory, 'nginx.conf');
    writeFileSync(path, configuration(this.port, upstream));
    const nginx = process.env.NGINX ?? '/usr/sbin/nginx';
    this.#process = spawn(nginx, ['-p', this.#directory, '-c', path], { stdio: ['ignore', 'ignore', 'inherit'] });
    for (let attempt = 0; attempt < 100; attempt += 1) {
      if (await answers(this.port)) return;
      await sleep(50);
    }
    throw new Error('nginx did not start');
  }

  async stop() {
    this.#process.kill('SIGTERM');
    await once(this.#process, 'exit');
    rmSync(this.#directory, { recursive: true });
  }
}

async function answers(port) {
  const socket = createConnection(port, '127.0.0.1');
  const has = await once(socket, 'connect').then(() => true, () => false);
  socket.destroy();
  return has;
}

function configuration(port, upstream) {
  return `daemon off; pid nginx.pid; error_log /dev/null; worker_processes 1; worker_rlimit_nofile 20000; worker_priority 10;
events { worker_connections 16384; }
http {
  access_log off; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  client_max_body_size 0; client_body_timeout 600s; client_header_timeout 600s; keepalive_timeout 600s;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://127.0.0.1:${upstream};
      proxy_bind ${PROXY};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_request_buffering off; proxy_buffering off;
      proxy_read_timeout 600s; proxy_send_timeout 600s;
    }
  }
}
`;
}
