import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';

import { expect, onTestFinished, test } from 'vitest';

import { Client } from '../src/index.js';

/** A client of a server that answers requests in this way. */
async function clientOf(answer: RequestListener): Promise<Client> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  let number = 0;
  return new Client({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: () => `token-${(number += 1)}` });
}

test('a request has a fresh token and its body, and resolves with the JSON of the answer', async () => {
  const client = await clientOf(async (request, response) => {
    const parts = await request.toArray();
    const { method, url, headers } = request;
    const body = Buffer.concat(parts).toString();
    response.end(JSON.stringify([method, url, headers.authorization, headers['content-type'], body]));
  });
  const json = 'application/json';
  expect(await client.request('POST', '/a/b?c=1', { d: 'é' })).toEqual(['POST', '/a/b?c=1', 'Bearer token-1', json, '{"d":"é"}']);
  expect(await client.request('GET', '/a')).toEqual(['GET', '/a', 'Bearer token-2', null, '']);
});

test('an answer without a body is undefined', async () => {
  const client = await clientOf((_, response) => response.writeHead(204).end());
  expect(await client.request('DELETE', '/a')).toBeUndefined();
});

test("a refusal has Bugle's code and message, and when to try again", async () => {
  const client = await clientOf((_, response) => {
    response.writeHead(429, { 'retry-after': '3' }).end(JSON.stringify({ error: { code: 'resource_exhausted', message: 'too fast' } }));
  });
  const error = await client.request('GET', '/a').catch((error: unknown) => error);
  expect(error).toMatchObject({ name: 'BugleError', code: 'resource_exhausted', message: 'too fast', retryAfter: 3_000, isTransient: true });
});

test.each([[502, true], [404, false]])('a refusal with %i that is not of Bugle has the status as its code', async (status, isTransient) => {
  const client = await clientOf((_, response) => response.writeHead(status).end('<html>not Bugle</html>'));
  const error = await client.request('GET', '/a').catch((error: unknown) => error);
  expect(error).toMatchObject({ code: `http_${status}`, message: `GET /a was answered with ${status}`, isTransient });
});

test('no answer, and one that is no JSON, are of the transport', async () => {
  const client = await clientOf(({ url, socket }, response) => {
    if (url === '/lost') socket.destroy();
    else response.end('no JSON');
  });
  for (const path of ['/lost', '/other']) {
    await expect(client.request('GET', path)).rejects.toMatchObject({ code: 'transport', isTransient: true });
  }
});
