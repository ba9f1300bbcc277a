// Builds the chat page and serves it: `node chat/serve.mjs BUGLE [PORT]`, such as `node chat/serve.mjs http://127.0.0.1:3000 8080`. Without a port it
// takes a free one. Prints where it listens as a line of JSON.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const [bugle, port = '0'] = process.argv.slice(2);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const packageOf = (name) => dirname(fileURLToPath(import.meta.resolve(`${name}/package.json`)));

const client = '../../../typescript/src';
const { outputFiles } = await build({
  entryPoints: [here('main.tsx')],
  bundle: true,
  minify: true,
  write: false,
  target: 'es2022',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
  alias: {
    // An app installs @bugle/client; here its sources are at hand. All of it uses one React.
    '@bugle/client/react': here(`${client}/react.ts`),
    '@bugle/client': here(`${client}/index.ts`),
    ...Object.fromEntries(['react', 'react-dom', 'socket.io-client'].map((name) => [name, packageOf(name)])),
  },
});

const page = (await readFile(here('index.html'), 'utf8')).replace('http://127.0.0.1:3000', bugle);
const files = {
  '/': ['text/html; charset=utf-8', page],
  '/main.js': ['text/javascript; charset=utf-8', outputFiles[0].text],
  '/style.css': ['text/css; charset=utf-8', await readFile(here('style.css'))],
  '/icon.svg': ['image/svg+xml', await readFile(here('icon.svg'))],
};
const policy = `default-src 'self'; connect-src ${bugle} ${bugle.replace(/^http/, 'ws')}; base-uri 'none'; frame-ancestors 'none'`;

const server = createServer((request, response) => {
  const [type, body] = files[new URL(request.url, 'http://page').pathname] ?? [];
  response.setHeader('content-security-policy', policy).setHeader('referrer-policy', 'no-referrer').setHeader('cache-control', 'no-store');
  if (type) response.setHeader('content-type', type).end(body);
  else response.writeHead(404).end();
});
server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ listening: `http://127.0.0.1:${server.address().port}` }));
});
