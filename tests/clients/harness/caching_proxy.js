import { once } from 'node:events';
import { createServer, request } from 'node:http';

const FORBIDS = /no-store|no-cache|private/;

/**
 * A shared cache, as some networks have it: it keeps each answer 200 to a GET that does not forbid it (RFC 9111, section 3), and does not
 * count the query's `t` as a part of the address.
 */
export class CachingProxy {
  /** How many requests it has answered itself. */
  hits = 0;
  #kept = new Map();
  #server;

  static async before(context, port) {
    const proxy = new CachingProxy(port);
    context.after(() => proxy.close());
    await once(proxy.#server, 'listening');
    return proxy;
  }

  constructor(port) {
    this.#server = createServer((asked, answering) => this.#serve(port, asked, answering)).listen(0, '127.0.0.1');
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  #serve(port, asked, answering) {
    const address = new URL(asked.url, 'http://cache');
    address.searchParams.delete('t');
    const kept = asked.method === 'GET' && this.#kept.get(address.href);
    if (kept) {
      this.hits += 1;
      answering.writeHead(200, kept.headers).end(kept.body);
      return;
    }
    const { method, url, headers } = asked;
    const onward = request({ host: '127.0.0.1', port, method, path: url, headers }, async (answer) => {
      const body = Buffer.concat(await answer.toArray());
      const { 'transfer-encoding': _, ...passed } = answer.headers;
      const mayKeep = method === 'GET' && answer.statusCode === 200 && !FORBIDS.test(passed['cache-control'] ?? '');
      if (mayKeep) this.#kept.set(address.href, { headers: passed, body });
      answering.writeHead(answer.statusCode, passed).end(body);
    });
    onward.on('error', () => answering.destroy());
    answering.on('close', () => onward.destroy());
    asked.pipe(onward);
  }

  close() {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
