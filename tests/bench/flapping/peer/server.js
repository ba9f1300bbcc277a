// What a team would write if there were no Bugle: Socket.IO for devices, gRPC for backends. It has a process of its own.
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import jwt from 'jsonwebtoken';
import { Server } from 'socket.io';

const PROTO = fileURLToPath(new URL('../../../../proto', import.meta.url));
const { API_KEY, JWT_SECRET, RECOVERY, ROOM } = process.env;
const OPTIONS = RECOVERY ? { connectionStateRecovery: { maxDisconnectionDuration: 120_000 } } : {};

const http = createServer();
const io = new Server(http, OPTIONS);

io.use((socket, next) => {
  try {
    socket.data.user = jwt.verify(socket.handshake.auth.token, JWT_SECRET).sub;
    next();
  } catch {
    next(new Error('Invalid or expired token'));
  }
});

io.on('connection', (socket) => {
  if (socket.recovered) return;
  socket.join([`user:${socket.data.user}`, ROOM]);
  socket.emit('connected', { userId: socket.data.user });
});

/** As in `proto/bugle/v1/notify.proto`; the backend here uses no other call. */
function emitStream(call) {
  if (call.metadata.get('authorization')[0] !== `Bearer ${API_KEY}`) {
    call.emit('error', { code: grpc.status.UNAUTHENTICATED, details: 'unknown API key' });
    return;
  }
  call.on('data', ({ correlation_id, emit }) => {
    const room = emit.target === 'room' ? emit.room : `user:${emit.user_id}`;
    const matched = io.sockets.adapter.rooms.get(room)?.size ?? 0;
    io.to(room).emit(emit.event, JSON.parse(emit.json));
    call.write({ correlation_id, result: { receipt: { matched, enqueued: matched, nodes: 1 } } });
  });
  call.on('end', () => call.end());
}

async function serveGrpc() {
  const definition = loadSync('bugle/v1/notify.proto', { includeDirs: [PROTO], keepCase: true, longs: Number, oneofs: true });
  const { Notify } = grpc.loadPackageDefinition(definition).bugle.v1;
  const server = new grpc.Server();
  server.addService(Notify.service, { EmitStream: emitStream });
  return promisify(server.bindAsync).call(server, '127.0.0.1:0', grpc.ServerCredentials.createInsecure());
}

process.on('disconnect', () => process.exit());
const grpcPort = await serveGrpc();
await promisify(http.listen).call(http, 0, '127.0.0.1');
process.send({ port: http.address().port, grpcPort });
