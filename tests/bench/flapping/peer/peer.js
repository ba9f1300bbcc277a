import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import jwt from 'jsonwebtoken';

import { Backend } from '../../../clients/harness/backend.js';
import { within } from '../../../clients/harness/deadline.js';
import { ROOM } from '../loads.js';

const SERVER = fileURLToPath(new URL('server.js', import.meta.url));

/** Node's Socket.IO server with a gRPC front. */
export class Peer {
  emitOptions = {};
  #secret = randomBytes(24).toString('hex');
  #apiKey = randomBytes(24).toString('hex');
  #process;
  #exited;

  /** Starts it, if wanted with Socket.IO's connection state recovery. */
  static async start({ recovery }) {
    const peer = new Peer(recovery);
    try {
      await within(peer.#listening(), 'the start of the Node server');
    } catch (error) {
      await peer.stop();
      throw error;
    }
    return peer;
  }

  constructor(recovery) {
    const env = {
      ...process.env,
      NODE_ENV: 'production',
      API_KEY: this.#apiKey,
      JWT_SECRET: this.#secret,
      RECOVERY: recovery ? 'on' : '',
      ROOM,
    };
    this.#process = fork(SERVER, { env });
    this.#exited = once(this.#process, 'exit');
  }

  async #listening() {
    const [{ port, grpcPort }] = await once(this.#process, 'message');
    this.url = `http://127.0.0.1:${port}`;
    this.backend = new Backend(`127.0.0.1:${grpcPort}`, this.#apiKey);
  }

  token(user) {
    return jwt.sign({ sub: user }, this.#secret, { algorithm: 'HS256', expiresIn: '1h' });
  }

  async stop() {
    this.backend?.close();
    this.#process.kill('SIGKILL');
    await this.#exited;
  }
}
