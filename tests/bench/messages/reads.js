import { now } from '../flapping/clock.js';
import { distribution } from '../flapping/figures.js';
import { CONVERSATIONS, IN_TRANSACTION, peerOf, survey, transactionOf, USER } from './history.js';
import { RestClient } from './rest.js';

/**
 * What is read: the path of a request about a conversation, and how many entries its answer has. `isPromised`: it takes less than the limit of
 * promises.js.
 */
const READS = [
  { title: 'conversations?limit=50', path: () => 'conversations?limit=50', entries: 50, isPromised: true },
  { title: 'conversations?limit=100', path: () => 'conversations?limit=100', entries: 100, isPromised: true },
  {
    title: 'conversations?limit=50&before=, from the 900th on',
    path: (_, { farConversation }) => `conversations?limit=50&before=${farConversation}`,
    entries: 50,
    isPromised: true,
  },
  { title: 'conversation/{userId}?limit=50', path: (number) => `conversation/${peerOf(number)}?limit=50`, entries: 50, isPromised: true },
  { title: 'conversation/{userId}?limit=100', path: (number) => `conversation/${peerOf(number)}?limit=100`, entries: 100, isPromised: true },
  {
    title: 'conversation/{userId}?limit=50&offset=50',
    path: (number) => `conversation/${peerOf(number)}?limit=50&offset=50`,
    entries: 50,
    isPromised: true,
  },
  {
    title: 'conversation/{userId}?limit=50&before=, the 50th',
    path: (number, { middles }) => `conversation/${peerOf(number)}?limit=50&before=${middles[number]}`,
    entries: 50,
    isPromised: true,
  },
  { title: 'unread-count', path: () => 'unread-count' },
  { title: 'transaction/{id}', path: (number) => `transaction/${transactionOf(number)}`, entries: IN_TRANSACTION },
];
/** Without a common divisor with the number of conversations: each is read once before one is read again. */
const STEP = 387;

/** The user of the history, who reads lists one after the other on one connection. */
export class Reader {
  title = 'reads';
  #port;
  #token;
  #places;

  static async open(bugle) {
    const reader = new Reader();
    reader.#port = bugle.port;
    reader.#token = bugle.token(USER);
    await reader.#connected(async (client) => (reader.#places = await survey(client, reader.#token)));
    return reader;
  }

  /** One round: the figures of each list, in milliseconds. */
  measure({ requests }) {
    return this.#connected(async (client) => {
      const figures = [];
      for (const { path, ...read } of READS) {
        const latencies = await this.#latencies(client, { path, ...read }, requests);
        figures.push({ ...read, ...distribution(latencies) });
      }
      return figures;
    });
  }

  /** Uses a connection of its own: Bugle closes one that is idle between two rounds. */
  async #connected(use) {
    const client = await RestClient.open(this.#port);
    try {
      return await use(client);
    } finally {
      client.close();
    }
  }

  async #latencies(client, { path, entries }, requests) {
    const latencies = [];
    for (let number = 0; number < requests; number += 1) {
      const asked = path((number * STEP) % CONVERSATIONS, this.#places);
      const start = now();
      const body = await client.get(this.#token, asked);
      latencies.push(now() - start);
      const { length } = JSON.parse(body);
      if (length !== entries) throw new Error(`${asked} was answered with ${length} entries, and ${entries} were expected`);
    }
    return latencies;
  }
}
