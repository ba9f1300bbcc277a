// The earnings tracker: `REACT_APP_API_URL=URL node device.mjs TOKEN`. Prints a JSON line for all that happens.
import { io as connectTo } from 'socket.io-client';

const [token] = process.argv.slice(2);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// What the app's code calls; else nothing would tell what it does not listen for.
const console = { log: (...said) => print({ said }) };
const showNotification = (notification) => print({ shown: 'notification', notification });
let earnings = [];
const setEarnings = (change) => {
  earnings = change(earnings);
  print({ shown: 'earnings', earnings });
};
const socketRef = { current: null };
function io(url, options) {
  // A browser says by itself where its page comes from.
  const { ORIGIN: origin } = process.env;
  const socket = connectTo(url, { ...options, ...(origin && { extraHeaders: { origin } }) });
  socket.on('connect', () => print({ connected: socket.io.engine.transport.name }));
  socket.on('connect_error', (error) => print({ refused: error.message, active: socket.active }));
  socket.on('disconnect', (reason) => print({ disconnected: reason }));
  socket.io.on('reconnect_attempt', (attempt) => print({ attempt }));
  socket.io.engine.on('upgrade', ({ name }) => print({ upgraded: name }));
  socket.io.engine.on('upgradeError', () => print({ upgraded: false }));
  socket.onAny((event, ...payload) => print({ event, payload }));
  return socket;
}

// From here on as in the app's document: what the hook useWebSocket does, and what the page's effect does.
const connect = () => {
  const socket = io(process.env.REACT_APP_API_URL || 'http://localhost:3001', {
    auth: {
      token: token
    },
    reconnection: true,
    reconnectionDelay: 1000,
    reconnectionAttempts: 5
  });

  socket.on('connect', () => {
    console.log('WebSocket connected');
  });

  socket.on('disconnect', () => {
    console.log('WebSocket disconnected');
  });

  socketRef.current = socket;
};

const useWebSocketEffect = () => {
  if (token) {
    connect();
  }
  return () => {
    if (socketRef.current) {
      socketRef.current.disconnect();
    }
  };
};

const earningsPageEffect = (socket) => {
  if (!socket) return;

  // Listen to new earnings
  socket.on('earnings:new', (response) => {
    setEarnings(prev => [response.data, ...prev]);
  });

  // Listen to earning updates
  socket.on('earnings:updated', (response) => {
    setEarnings(prev =>
      prev.map(e => e.id === response.data.id ? { ...e, ...response.data.changes } : e)
    );
  });

  // Listen to earning deletions
  socket.on('earnings:deleted', (response) => {
    setEarnings(prev => prev.filter(e => e.id !== response.data.id));
  });

  // Listen to notifications
  socket.on('notification', (response) => {
    showNotification(response.data);
  });

  return () => {
    socket.off('earnings:new');
    socket.off('earnings:updated');
    socket.off('earnings:deleted');
    socket.off('notification');
  };
};
// Up to here.

const cleanups = [useWebSocketEffect(), earningsPageEffect(socketRef.current)];
process.on('SIGTERM', () => {
  for (const cleanup of cleanups) cleanup?.();
  process.exit();
});
