// The loan app: `node device.mjs URL TOKEN`, and for an admin `node device.mjs URL TOKEN AdminOverview`. Prints a JSON line for all that
// happens. A line on standard input, such as ["subscribe:admin", "overview"], is an event that the device sends, with an
// acknowledgement; on the admin's page, "markAllRead" is what its button does.
import { createInterface } from 'node:readline';

import { io } from 'socket.io-client';

const [serverUrl, token, page] = process.argv.slice(2);
const started = performance.now();
const print = (line) => process.stdout.write(`${JSON.stringify({ ...line, ms: Math.round(performance.now() - started) })}\n`);
const console = { log: (...said) => print({ said }) };

// services/websocket.ts: the one connection. The document tells its ways in words: "Automatic reconnection (max 5 attempts)" with
// "exponential backoff", "Connection timeout handling", "Error notifications to users", "Heartbeat ping/pong".
const socket = io(serverUrl, {
  auth: { token },
  reconnection: true,
  reconnectionAttempts: 5,
  reconnectionDelay: Number(process.env.RECONNECTION_DELAY ?? 1_000),
  reconnectionDelayMax: 30_000,
  timeout: 20_000,
});
socket.on('connect', () => print({ status: 'Connected' }));
socket.on('disconnect', (reason) => print({ status: 'Disconnected', reason }));
socket.on('connect_error', (error) => print({ error: error.message, active: socket.active }));
socket.io.on('reconnect_attempt', (attempt) => print({ attempt }));
socket.io.on('reconnect_failed', () => print({ status: 'Given up' }));
socket.io.on('ping', () => print({ heartbeat: true }));
socket.onAny((event, ...payload) => print({ event, payload }));

// hooks/useWebSocket.ts: listeners that are taken away again.
function on(event) {
  return (listener) => {
    socket.on(event, listener);
    return () => socket.off(event, listener);
  };
}
const useLoanWebSocket = () => ({
  isConnected: socket.connected,
  onLoanStatus: on('loan:status'),
  onLoanFunded: on('loan:funded'),
});

// pages/admin/AdminOverview.tsx: the "Unread notification counter". Each admin has read other notifications of role:admin. It asks how many
// are left whenever that may have changed, one question at a time, so that the last answer is right whatever was missed.
function useUnreadNotifications(show) {
  let asked = Promise.resolve();
  async function ask(path, method) {
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(`${serverUrl}/bugle/notifications/${path}?room=role:admin`, { method, headers });
    return response.ok ? show(await response.json()) : print({ refused: response.status });
  }
  const queue = (path, method) => {
    asked = asked.then(() => ask(path, method)).catch((error) => print({ error: error.message }));
  };
  const refresh = () => queue('unread-count', 'GET');
  // Connected (again); a new one; read on another device.
  for (const event of ['connect', 'admin:notification', 'bugle:unread']) socket.on(event, refresh);
  return { markAllRead: () => queue('read', 'PUT') };
}

// From here on as in the app's document: what the component's effect does.
const { isConnected, onLoanStatus, onLoanFunded } = useLoanWebSocket()

const effect = () => {
  // Listen for loan status updates
  const cleanup = onLoanStatus((data) => {
    console.log('Loan status updated:', data)
    // Update UI accordingly
  })

  return cleanup // Cleanup on unmount
}
// Up to here.

const cleanup = effect();
const overview = page === 'AdminOverview' && useUnreadNotifications(({ count }) => print({ unread: count }));
createInterface({ input: process.stdin }).on('line', (line) => {
  const asked = JSON.parse(line);
  if (asked === 'markAllRead') {
    overview.markAllRead();
    return;
  }
  socket.emit(...asked, (answer) => print({ asked, answer }));
});
process.on('SIGTERM', () => {
  cleanup();
  socket.disconnect();
  process.exit();
});
