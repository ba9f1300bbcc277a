import { dirname, join } from 'node:path';

import { Configuration } from '../../clients/harness/configuration.js';
import { Server } from '../../clients/harness/server.js';
import { ROOM } from './loads.js';
import { newDatabase } from './postgres.js';

/** Bugle with a store and a room with history. */
export class Bugle {
  emitOptions = { user: { store: true } };
  #configuration = new Configuration();
  #server;

  /** `store`: sqlite or postgres. */
  static async start(store) {
    const bugle = new Bugle();
    try {
      await bugle.#serve(store);
    } catch (error) {
      bugle.#configuration.remove();
      throw error;
    }
    return bugle;
  }

  async #serve(store) {
    const file = join(dirname(this.#configuration.path), 'bugle.db');
    this.#configuration.write({
      'auth.rooms': [ROOM],
      'store.url': store === 'postgres' ? newDatabase('flapping') : `sqlite:${file}`,
      rooms: [{ match: 'listing:*', history: { size: 100, age: '2m' } }],
    });
    this.#server = await Server.run(this.#configuration);
    this.url = this.#server.url;
    this.backend = this.#server.backend;
  }

  token(user) {
    return this.#server.token(user);
  }

  async stop() {
    await this.#server.kill();
    this.#configuration.remove();
  }
}
