import jwt from 'jsonwebtoken';
import { Server } from 'socket.io';

/**
 * As Socket.IO's guides for production and for performance advise: https://socket.io/docs/v4/performance-tuning/. Its WebSockets are those of
 * `ws`, unmasked by `bufferutil`, which it takes when it is installed. (`utf-8-validate` does nothing since Node 18.14.) Not taken is what
 * is no longer the Socket.IO that teams run: `eiows` and µWebSockets.js are other servers, which are built or fetched apart from npm.
 */
const OPTIONS = {
  // Apps have the client in their own bundle.
  serveClient: false,
  // As it is by default, and said here because so much hangs on it: compressing costs memory and time for each connection.
  perMessageDeflate: false,
  // Also the default: answers to polling of 1 KiB and more. WebSockets have nothing to do with it.
  httpCompression: true,
  // No connectionStateRecovery: it is off by default, keeps every packet for each room, and here nobody has to come back.
};

/** Devices over WebSocket and polling: who has a token is in `user:{sub}` and `role:{role}`. */
export function serveDevices(http, secret) {
  const io = new Server(http, OPTIONS);
  // The first request of each session is kept for session middleware, which there is none of.
  io.engine.on('connection', (rawSocket) => {
    rawSocket.request = null;
  });
  io.use((socket, next) => {
    try {
      const { sub, role } = jwt.verify(socket.handshake.auth.token, secret, { algorithms: ['HS256'] });
      if (!sub) throw new Error('a token without a user');
      socket.data.user = sub;
      socket.data.role = role;
      next();
    } catch {
      next(new Error('Invalid or expired token'));
    }
  });
  io.on('connection', welcome);
  return io;
}

function welcome(socket) {
  const { user, role } = socket.data;
  const rooms = role ? [`user:${user}`, `role:${role}`] : [`user:${user}`];
  socket.join(rooms);
  socket.emit('connected', { userId: user, connectionId: socket.id, rooms });
}
