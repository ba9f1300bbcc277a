// The ticket resale app: `node device.mjs URL TOKEN`. Prints a JSON line for all that happens. A line on standard input is what its user
// does: {"emit": ["subscribe:listing", "listing-123"]}; with "ask" instead of "emit" the server is asked for an acknowledgement.
import { createInterface } from 'node:readline';

import { io as connect } from 'socket.io-client';

const [url, token] = process.argv.slice(2);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// What the app's code calls; else nothing would tell what it does not listen for.
const console = { log: (...said) => print({ said }), error: (...said) => print({ said }) };
const [handleListingUpdate, handleTransactionUpdate, handleNewMessage] = ['listing', 'transaction', 'message'].map(
  (shown) => (value) => print({ shown, value }),
);
function io(...args) {
  const socket = connect(...args);
  socket.on('connect', () => print({ connected: socket.io.engine.transport.name }));
  socket.on('disconnect', (reason) => print({ disconnected: reason }));
  socket.onAny((event, ...payload) => print({ event, payload }));
  return socket;
}

// From here on as in the app's document, but for the URL and the token.
const socket = io(url, {
  auth: {
    token
  },
  transports: ['websocket', 'polling']
});

socket.on('connected', (data) => {
  console.log('Connected:', data);
});

socket.on('connect_error', (error) => {
  console.error('Connection error:', error.message);
});

// Listen for updates
socket.on('listing:updated', handleListingUpdate);
socket.on('transaction:updated', handleTransactionUpdate);
socket.on('message:received', handleNewMessage);

// Listen for price changes
socket.on('listing:price_changed', (change) => {
  console.log('Price changed:', change);
});

// Receive messages
socket.on('message:received', (message) => {
  console.log('New message:', message);
});

socket.on('typing:start', (data) => {
  console.log(`${data.userId} is typing...`);
});

const actions = {
  'subscribe:listing'(listingId) {
    // Subscribe to listing updates
    socket.emit('subscribe:listing', listingId);
  },
  'unsubscribe:listing'(listingId) {
    // Unsubscribe
    socket.emit('unsubscribe:listing', listingId);
  },
  'subscribe:transaction'(transactionId) {
    // Subscribe to transaction updates
    socket.emit('subscribe:transaction', transactionId);
  },
  'message:send'(receiverId, message) {
    // Send a message
    socket.emit('message:send', {
      receiverId,
      message
    });
  },
  'typing:start'(receiverId) {
    socket.emit('typing:start', receiverId);
  },
  'typing:stop'(receiverId) {
    socket.emit('typing:stop', receiverId);
  },
};
// Up to here.

createInterface({ input: process.stdin }).on('line', (line) => {
  const { emit, ask } = JSON.parse(line);
  if (emit) actions[emit[0]](...emit.slice(1));
  else socket.emit(...ask, (answer) => print({ asked: ask, answer }));
});
process.on('SIGTERM', () => {
  socket.disconnect();
  process.exit();
});
