import { Connection } from '../peers/connection.js';
import { parseResponse, request } from '../peers/wire.js';

const PATH = '/bugle/messages';

/** An HTTP client on one connection that is kept alive, with one request at a time. */
export class RestClient {
  #connection;

  static async open(port) {
    const client = new RestClient();
    client.#connection = await Connection.open(port);
    return client;
  }

  /** The body of a list or count, as text. */
  get(token, path) {
    return this.#ask(200, 'GET', `${PATH}/${path}`, token);
  }

  /** Sends a message. */
  post(token, message) {
    return this.#ask(201, 'POST', PATH, token, JSON.stringify(message));
  }

  close() {
    this.#connection.close();
  }

  async #ask(expected, method, path, token, body) {
    const headers = { Authorization: `Bearer ${token}` };
    if (body) headers['Content-Type'] = 'application/json';
    this.#connection.write(request(method, path, headers, body));
    const answer = await this.#connection.read(parseResponse);
    if (answer.status !== expected) throw new Error(`${method} ${path} was answered with ${answer.status} ${answer.body}`);
    return answer.body;
  }
}
