import { Configuration } from '../../clients/harness/configuration.js';
import { Server } from '../../clients/harness/server.js';
import { newDatabase } from '../flapping/postgres.js';

/** The largest rate, which is no limit. */
const UNLIMITED = { per_second: 10_000_000, burst: 100_000_000 };

const STORE_IS_OPEN = 'the store is open';

/** Bugle with direct messages, a PostgreSQL database of its own, and no rates. */
export class Bugle {
  database = newDatabase('messages');
  #configuration = new Configuration({
    'store.url': this.database,
    'messages.enabled': true,
    'messages.rate': UNLIMITED,
    'messages.conversation_rate': UNLIMITED,
    'limits.client_events_per_connection': UNLIMITED,
    'limits.client_events_per_user': UNLIMITED,
  });
  #server;

  static async start() {
    const bugle = new Bugle();
    try {
      await bugle.#serve();
    } catch (error) {
      await bugle.stop();
      throw error;
    }
    return bugle;
  }

  /** Returns once the tables are there, too. */
  async #serve() {
    this.#server = await Server.run(this.#configuration);
    const { logged, log } = this.#server;
    if (!logged.includes(STORE_IS_OPEN)) await log.find(({ message }) => message === STORE_IS_OPEN);
  }

  get url() {
    return this.#server.url;
  }

  get port() {
    return this.#server.port;
  }

  get pid() {
    return this.#server.pid;
  }

  token(user) {
    return this.#server.token(user);
  }

  async stop() {
    await this.#server?.kill();
    this.#configuration.remove();
  }
}
