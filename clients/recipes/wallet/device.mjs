// The wallet app: `node device.mjs URL TOKEN [snippet]`, snippet one of those below. Prints a JSON line for all that happens.
// A line on standard input, {"token": "…"}, is the app's state accessToken changing.
import { createInterface } from 'node:readline';

import { io as connect } from 'socket.io-client';

const [url, token, snippet = 'useRealtime'] = process.argv.slice(2);
const print = (line) => console.log(JSON.stringify(line));

// What the snippets call; else nothing would tell what they do not listen for.
function io(...args) {
  const socket = connect(...args);
  socket.on('connect', () => print({ connected: true }));
  socket.on('connect_error', (error) => print({ refused: error.message, active: socket.active }));
  socket.on('disconnect', (reason) => print({ disconnected: reason }));
  socket.io.on('reconnect_attempt', (attempt) => print({ attempt }));
  socket.onAny((event, ...payload) => print({ event, payload }));
  return socket;
}

const updateWalletBalance = (walletId, balance) => print({ shown: 'balance', walletId, balance });
const refetchTransactions = () => print({ shown: 'transactions' });

// From here on as in the app's document, but for the URL.
const snippets = {
  useRealtime(accessToken) {
    if (!accessToken) return;

    const socket = io(url, {
      path: '/ws',
      transports: ['websocket', 'polling'],
      auth: { token: accessToken },
    });

    socket.on('WALLET_UPDATE', (payload) => {
      // Update balance in state/context
      updateWalletBalance(payload.walletId, payload.balance);
    });

    socket.on('TRANSACTION_CREATED', (payload) => {
      // Refetch transactions or append
      refetchTransactions();
    });

    const ping = setInterval(() => socket.emit('PING'), 30000);

    return () => {
      clearInterval(ping);
      socket.disconnect();
    };
  },

  handshakeAuth(access_token) {
    const socket = io(url, {
      path: '/ws',
      auth: {
        token: access_token,           // raw token, or
        token: `Bearer ${access_token}`
      }
    });
    return heartbeat(socket);
  },

  queryParameter(access_token) {
    const socket = io(url, {
      path: '/ws',
      query: { token: access_token }
    });
    return heartbeat(socket);
  },
};

function heartbeat(socket) {
  socket.emit('PING');
  socket.on('PONG', () => { /* connection alive */ });
  return () => socket.disconnect();
}
// Up to here.

let cleanup = snippets[snippet](token);
createInterface({ input: process.stdin }).on('line', (line) => {
  cleanup?.();
  cleanup = snippets[snippet](JSON.parse(line).token);
});
process.on('SIGTERM', () => {
  cleanup?.();
  process.exit();
});
