import { io } from 'socket.io-client';

import { LOADS } from '../loads.js';

/**
 * The ways to write a device. Each is given `{ url, token, line, reconnection }`, and calls `arrived(load, payload)` for what comes,
 * `take(load, payload)` for what of that an app is to have, and `began({ whole })` when a connection has caught up: `whole` if
 * the server says that nothing was lost.
 */
export const KINDS = { plain, resuming, packaged };

/** A client of any Socket.IO server: with one that recovers, the library resumes by itself. */
function plain({ arrived, take, began, ...device }) {
  const socket = connect(device, { token: device.token });
  socket.on('connect', () => began({ whole: socket.recovered }));
  for (const { name, event } of LOADS) {
    socket.on(event, (payload) => {
      arrived(name, payload);
      take(name, payload);
    });
  }
}

/** A client of Bugle that says which positions it has seen. */
function resuming({ arrived, take, began, ...device }) {
  const resume = {};
  const ids = new Set();
  const socket = connect(device, { token: device.token, resume });
  socket.on('bugle:resumed', ({ rooms }) => {
    for (const [room, { position }] of Object.entries(rooms)) if (position) resume[room] = position;
    began({ whole: isWhole(rooms) });
  });
  for (const { name, event } of LOADS) {
    socket.on(event, (payload, meta) => {
      arrived(name, payload);
      resume[meta.room] = meta.position;
      if (!ids.has(meta.id)) take(name, payload);
      ids.add(meta.id);
    });
  }
}

/** A client of Bugle written with its package. */
async function packaged({ url, token, line, reconnection, arrived, take, began }) {
  const { connect: open } = await import('../../../../clients/typescript/dist/index.js');
  // It always comes back with jitter, by which its times would differ from the others' for no reason of the server.
  if (reconnection) Math.random = () => 1 - Number.EPSILON;
  const client = open({
    url,
    token,
    ...(reconnection && { retryDelay: reconnection.reconnectionDelay, retryDelayMax: reconnection.reconnectionDelayMax }),
    restAfter: false,
    socketOptions: { transports: ['websocket'], agent: line },
    onResumed: (rooms) => began({ whole: isWhole(rooms) }),
  });
  for (const { name, event } of LOADS) {
    client.socket.on(event, (payload) => arrived(name, payload));
    client.on(event, (payload) => take(name, payload));
  }
}

function connect({ url, line, reconnection }, credentials) {
  return io(url, {
    transports: ['websocket'],
    forceNew: true,
    agent: line,
    auth: (give) => give(credentials),
    ...reconnection,
  });
}

function isWhole(rooms) {
  return Object.values(rooms).every(({ recovered }) => recovered);
}
