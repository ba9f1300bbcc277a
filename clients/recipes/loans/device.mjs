// The loan app: `node device.mjs URL TOKEN`. Prints a JSON line for all that happens. A line on standard input, such as
// ["subscribe:admin", "overview"], is an event that the device sends, with an acknowledgement.
import { createInterface } from 'node:readline';

import { io } from 'socket.io-client';

const [serverUrl, token] = process.argv.slice(2);
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
createInterface({ input: process.stdin }).on('line', (line) => {
  const asked = JSON.parse(line);
  socket.emit(...asked, (answer) => print({ asked, answer }));
});
process.on('SIGTERM', () => {
  cleanup();
  socket.disconnect();
  process.exit();
});
