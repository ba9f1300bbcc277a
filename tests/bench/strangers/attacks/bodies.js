import { closeIdle, drain, engine, open, openSession, times, write } from '../raw.js';

const COUNT = 1_000;
const ANNOUNCED = 1_000_000;

/** POSTs of 1 MB without their last byte, each to a session of its own. */
export async function posts({ port, token }) {
  const ids = [];
  const refused = await times(COUNT, async () => ids.push(await openSession(port, token)), 50);
  closeIdle();
  const body = Buffer.from(`4${'a'.repeat(ANNOUNCED - 2)}`);
  const ended = await times(ids.length, (number) => unfinished(port, 'POST', engine(4, 'polling', ids[number]), '', body));
  return `${refused} sessions refused, ${ended} bodies not sent`;
}

/** The same to the REST path. */
export async function puts({ port, token }) {
  const body = Buffer.from(`{"ids":["${'a'.repeat(ANNOUNCED - 10)}`);
  const headers = `Content-Type: application/json\r\n${token ? `Authorization: Bearer ${token}\r\n` : ''}`;
  const path = '/bugle/notifications/read';
  const ended = await times(COUNT, () => unfinished(port, 'PUT', path, headers, body));
  return `${ended} bodies not sent`;
}

async function unfinished(port, method, path, headers, body) {
  const socket = drain(await open(port));
  socket.write(`${method} ${path} HTTP/1.1\r\nHost: bugle\r\n${headers}Content-Length: ${ANNOUNCED}\r\n\r\n`);
  if (!(await write(socket, body))) throw new Error('not written');
}

/** Chunked bodies with a byte per second. */
export async function trickles({ port, token }) {
  const ids = [];
  await times(COUNT, async () => ids.push(await openSession(port, token)), 50);
  closeIdle();
  const streams = [];
  await times(ids.length, async (number) => {
    const socket = drain(await open(port));
    socket.write(`POST ${engine(4, 'polling', ids[number])} HTTP/1.1\r\nHost: bugle\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n4\r\n`);
    streams.push(socket);
  });
  setInterval(() => streams.forEach((socket) => socket.writable && socket.write('1\r\na\r\n')), 1_000);
  return `${streams.length} opened`;
}
