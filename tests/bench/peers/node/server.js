// What a team writes if there is no Bugle: one process with Socket.IO for devices, gRPC for backends and metrics for its operators.
import { createServer } from 'node:http';
import { promisify } from 'node:util';

import { metrics } from './admin.js';
import { serveBackends } from './backends.js';
import { serveDevices } from './devices.js';

const HOST = '127.0.0.1';
const { API_KEY, JWT_SECRET } = process.env;
if (!API_KEY || !JWT_SECRET) throw new Error('API_KEY and JWT_SECRET are needed');

const clients = createServer();
const io = serveDevices(clients, JWT_SECRET);
const admin = createServer(metrics());
const backends = await serveBackends(io, API_KEY, HOST);
for (const server of [clients, admin]) await promisify(server.listen).call(server, 0, HOST);

process.once('SIGTERM', async () => {
  await io.close();
  await promisify(backends.server.tryShutdown).call(backends.server);
  admin.close();
  admin.closeAllConnections();
});

const address = (server) => `${HOST}:${server.address().port}`;
const addresses = { 'clients.listen': address(clients), 'grpc.listen': `${HOST}:${backends.port}`, 'admin.listen': address(admin) };
process.stderr.write(`${JSON.stringify({ message: 'listening', ...addresses })}\n`);
