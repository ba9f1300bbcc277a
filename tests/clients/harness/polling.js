import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { gunzipSync } from 'node:zlib';

/** Sends an HTTP request, and has the answer as it came over the wire. */
export async function exchange(url, { body, ...options } = {}) {
  const call = request(url, options);
  call.end(body);
  const [answer] = await once(call, 'response');
  const parts = [];
  for await (const part of answer) parts.push(part);
  const bytes = Buffer.concat(parts);
  const text = `${answer.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes}`;
  return { status: answer.statusCode, headers: answer.headers, size: bytes.length, text };
}

/** A device over long polling, by hand. */
export class PollingSession {
  #url;

  /** With the handshake at `handshake`; not connected yet. */
  static async open(url, headers) {
    const opened = await exchange(`${url}/socket.io/?EIO=4&transport=polling`, { headers });
    return new PollingSession(url, opened);
  }

  constructor(url, opened) {
    this.handshake = JSON.parse(opened.text.slice(1));
    this.#url = `${url}/socket.io/?EIO=4&transport=polling&sid=${this.handshake.sid}`;
  }

  async connect(token) {
    await exchange(this.#url, { method: 'POST', body: `40${JSON.stringify({ token })}` });
    await this.pollFor((packet) => packet.startsWith('40'));
  }

  /** The answer to the poll that brings such a packet. */
  async pollFor(fits, headers) {
    for (;;) {
      const answer = await exchange(this.#url, { headers });
      if (answer.status !== 200) throw new Error(`the poll was answered ${answer.status}: ${answer.text}`);
      if (answer.text.split('\x1e').some(fits)) return answer;
    }
  }
}

/** An HTTP proxy that knows nothing of WebSocket, as there are; its address. */
export async function proxyWithoutWebSocket(context, target) {
  const proxy = createServer((asked, answering) => {
    const { connection, upgrade, ...headers } = asked.headers;
    const passedOn = request(target + asked.url, { method: asked.method, headers }, (answer) => {
      answering.writeHead(answer.statusCode, answer.headers);
      answer.pipe(answering);
    });
    passedOn.on('error', () => answering.destroy());
    // It asked for no such thing.
    passedOn.on('upgrade', (_, stream) => stream.destroy() && answering.destroy());
    answering.on('close', () => passedOn.destroy());
    asked.pipe(passedOn);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  context.after(() => {
    proxy.close();
    proxy.closeAllConnections();
  });
  return `http://127.0.0.1:${proxy.address().port}`;
}
