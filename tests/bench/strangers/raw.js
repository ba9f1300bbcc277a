import { Agent, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** The attackers' address. The honest devices have 127.0.0.1. */
export const ATTACKER = '127.0.0.66';

const ENGINE = '/socket.io/';
const HANDSHAKE = [
  'Host: bugle',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
];

/** The sockets that were opened, for the count of those that the server has left open. */
const sockets = [];

/** How many of the sockets are open. */
export function alive() {
  return sockets.filter(({ hasEnded }) => !hasEnded).length;
}

/** Calls `task` with 0 to `count` - 1, at most `width` at a time. A task that fails is counted as refused. */
export async function times(count, task, width = 100) {
  let next = 0;
  let refused = 0;
  const worker = async () => {
    while (next < count) {
      const number = next;
      next += 1;
      await task(number).catch(() => (refused += 1));
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, worker));
  return refused;
}

/** Opens a TCP connection that nobody reads from. */
export function open(port) {
  const entry = { hasEnded: false };
  const socket = connect({ port, host: '127.0.0.1', localAddress: ATTACKER, noDelay: true });
  sockets.push(entry);
  entry.socket = socket;
  socket.on('close', () => (entry.hasEnded = true));
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket));
    socket.on('error', reject);
  });
}

/** Reads and drops what the server sends, so that the end of the connection is seen. */
export function drain(socket) {
  socket.on('data', () => {}).on('end', () => socket.destroy());
  return socket;
}

/** Writes and waits until the kernel has taken everything, for at most `within` milliseconds. Returns whether it has. */
export function write(socket, bytes, within = 5_000) {
  if (socket.destroyed) return Promise.resolve(false);
  // A socket that is destroyed calls back with an error.
  const written = new Promise((resolve) => socket.write(bytes, (error) => resolve(!error)));
  return Promise.race([written, sleep(within, false, { ref: false })]);
}

/** Opens a WebSocket without reading further than to the end of the response 101. */
export async function openWebSocket(port, path) {
  const socket = await open(port);
  socket.write([`GET ${path} HTTP/1.1`, ...HANDSHAKE, '', ''].join('\r\n'));
  let head = '';
  await new Promise((resolve, reject) => {
    socket.on('close', () => reject(new Error('closed')));
    socket.on('data', function read(bytes) {
      head += bytes.toString('latin1');
      if (!head.includes('\r\n\r\n')) return;
      socket.off('data', read).pause();
      if (head.startsWith('HTTP/1.1 101')) resolve();
      else reject(new Error(head.slice(0, 12)));
    });
  });
  return socket;
}

/** A frame of a client, masked with zeros. */
export function frame(opcode, payload, isFinal = true) {
  const body = Buffer.from(payload);
  const first = (isFinal ? 0x80 : 0) | opcode;
  if (body.length < 126) return Buffer.concat([Buffer.from([first, 0x80 | body.length, 0, 0, 0, 0]), body]);
  const head = Buffer.alloc(body.length < 65_536 ? 8 : 14);
  head[0] = first;
  head[1] = 0x80 | (body.length < 65_536 ? 126 : 127);
  if (body.length < 65_536) head.writeUInt16BE(body.length, 2);
  else head.writeBigUInt64BE(BigInt(body.length), 2);
  return Buffer.concat([head, body]);
}

/** A text frame. */
export function text(message) {
  return frame(1, message);
}

/** The path of Engine.IO with a query. */
export function engine(eio, transport, sid) {
  return `${ENGINE}?EIO=${eio}&transport=${transport}${sid ? `&sid=${sid}` : ''}`;
}

const agent = new Agent({ keepAlive: true, maxSockets: 50, localAddress: ATTACKER });

/** Closes the connections of the requests that were answered. */
export function closeIdle() {
  agent.destroy();
}

/** Sends a whole request and returns the answer's body. */
export function ask(port, method, path, body = '') {
  return new Promise((resolve, reject) => {
    const headers = body ? { 'Content-Type': 'text/plain;charset=UTF-8', 'Content-Length': Buffer.byteLength(body) } : {};
    const request = httpRequest({ host: '127.0.0.1', port, method, path, headers, agent, timeout: 20_000 });
    request.on('error', reject).on('timeout', () => request.destroy(new Error('timeout')));
    request.on('response', (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (part) => (answer += part));
      response.on('end', () => (response.statusCode === 200 ? resolve(answer) : reject(new Error(answer))));
    });
    request.end(body);
  });
}

/** Opens a session that polls, with CONNECT if there is a token. Returns its id. */
export async function openSession(port, token) {
  const answer = await ask(port, 'GET', engine(4, 'polling'));
  const { sid } = JSON.parse(answer.slice(answer.indexOf('{')));
  if (token) {
    await ask(port, 'POST', engine(4, 'polling', sid), connectPacket(token));
    await ask(port, 'GET', engine(4, 'polling', sid));
  }
  return sid;
}

/** The packet CONNECT of Socket.IO 5, as a packet of Engine.IO. */
export function connectPacket(token) {
  return `40${JSON.stringify({ token })}`;
}
