// The least that a WebSocket server in Node can be: `ws` alone, which keeps its sockets.
import { once } from 'node:events';

import { WebSocketServer } from 'ws';

const HOST = '127.0.0.1';
const server = new WebSocketServer({ host: HOST, port: 0, perMessageDeflate: false });
const sockets = new Set();

server.on('connection', (socket) => {
  sockets.add(socket);
  socket.on('close', () => sockets.delete(socket));
  socket.on('error', () => {});
});

await once(server, 'listening');
process.stderr.write(`${JSON.stringify({ message: 'listening', 'clients.listen': `${HOST}:${server.address().port}` })}\n`);
