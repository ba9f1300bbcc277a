import { connect as connectHttp2 } from 'node:http2';

import { ATTACKER, alive, drain, open, times, write } from '../raw.js';

const COUNT = 1_000;
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const HALF_HEAD = 'GET /livez HTTP/1.1\r\nHost: bu';

/** Connections to each listener that send nothing. */
export const silent = { devices: quiet('port', ''), grpc: quiet('grpc', ''), admin: quiet('admin', '') };

/** Connections that begin a request and do not end it. */
export const halves = {
  devices: quiet('port', HALF_HEAD),
  admin: quiet('admin', HALF_HEAD),
  grpc: quiet('grpc', PREFACE.slice(0, 12)),
  preface: quiet('grpc', PREFACE),
};

function quiet(listener, beginning) {
  return async (target) => {
    const refused = await times(COUNT, async () => {
      const socket = drain(await open(target[listener]));
      if (beginning) socket.write(beginning);
    });
    return `${refused} refused`;
  };
}

/** Connections that have made a complete request: the floor. */
export async function idle({ port }) {
  await times(COUNT, async () => drain(await open(port)).write('GET / HTTP/1.1\r\nHost: bugle\r\n\r\n'));
  return `${alive()} open`;
}

/** Bytes as of a TLS handshake, one per second. */
export async function garbage({ port }) {
  const streams = [];
  await times(2 * COUNT, async () => {
    const socket = drain(await open(port));
    socket.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]));
    streams.push(socket);
  });
  setInterval(() => streams.forEach((socket) => socket.writable && socket.write(Buffer.from([0x01]))), 1_000);
  return '';
}

/** Heads of nearly 64 KiB without their end. */
export async function heads({ port }) {
  const head = `GET / HTTP/1.1\r\nHost: bugle\r\n${`X-Long: ${'a'.repeat(1_000)}\r\n`.repeat(62)}`;
  const refused = await times(COUNT, async () => write(drain(await open(port)), head));
  return `${refused} refused`;
}

/** Calls without a key whose bodies do not end, on many streams of one connection. */
export function calls({ grpc }) {
  return callOften(grpc, 100, {}, Buffer.alloc(60_000));
}

/** Calls without a key that have large headers. */
export function largeCalls({ grpc }) {
  return callOften(grpc, 1_000, { 'x-long': 'a'.repeat(12_000) });
}

async function callOften(grpc, count, headers, body) {
  await times(50, async () => {
    const session = connectHttp2(`http://127.0.0.1:${grpc}`, { localAddress: ATTACKER });
    session.on('error', () => {});
    await new Promise((resolve, reject) => session.once('connect', resolve).once('error', reject));
    for (let number = 0; number < count; number += 1) {
      const stream = session.request({
        ':method': 'POST',
        ':path': '/bugle.v1.Notify/EmitToUser',
        'content-type': 'application/grpc',
        te: 'trailers',
        ...headers,
      });
      stream.on('error', () => {});
      if (body) stream.write(body);
    }
  }, 10);
  return '';
}
