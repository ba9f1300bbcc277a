import { setTimeout as sleep } from 'node:timers/promises';

import { alive, connectPacket, drain, engine, frame, openWebSocket, text, times, write } from '../raw.js';

const FLOOD_BYTES = 60_000_000;
const FLOODERS = 8;
const ATTACHMENT = Buffer.alloc(999_000);
const SMALL_ATTACHMENT = Buffer.alloc(60_000);

/** Pings without reading. `path`, the ping, and what is sent first with a token. */
export const floods = {
  eio4: flood(engine(4, 'websocket'), frame(9, 'x'.repeat(125)), connectPacket),
  eio3: flood(engine(3, 'websocket'), frame(9, 'x'.repeat(125)), connect3),
  packets3: flood(engine(3, 'websocket'), text(`2${'x'.repeat(124)}`), connect3),
  plain: flood('/ws', frame(9, 'x'.repeat(125)), (token) => JSON.stringify({ type: 'auth', access_token: token })),
};

/** A client of Socket.IO 4 (Engine.IO 3) has its token in the query. */
function connect3() {
  return undefined;
}

function flood(path, ping, first) {
  const pings = Buffer.concat(Array.from({ length: 400 }, () => ping));
  return async ({ port, token }) => {
    let sent = 0;
    await times(FLOODERS, async () => {
      const query = token && path.includes('EIO=3') ? `&token=${token}` : '';
      const socket = await openWebSocket(port, path + query);
      if (token && first(token)) await write(socket, text(first(token)));
      await sleep(300);
      for (let bytes = 0; bytes < FLOOD_BYTES; bytes += pings.length) {
        if (!(await write(socket, pings, 1_500))) break;
        sent += pings.length;
      }
    });
    return `${(sent / 1e6).toFixed(1)} MB of ${(FLOODERS * FLOOD_BYTES) / 1e6} written, ${alive()} open`;
  };
}

/** Packets with 10,000 announced attachments, of which ten of 999 kB are sent. */
export async function attachments({ port, token }) {
  await times(15, async () => {
    const socket = await admitted(port, token);
    await write(socket, text('4510000-["x",{"_placeholder":true,"num":0}]'));
    for (let number = 0; number < 10; number += 1) await write(socket, frame(2, ATTACHMENT), 1_000);
  });
  return `${alive()} open`;
}

/** Packets of so many devices with 16 announced attachments of 60 kB, of which 15 come, one every half second. */
export function slowAttachments(devices) {
  return async ({ port, token }) => {
    const streams = [];
    await times(devices, async () => {
      const socket = await admitted(port, token);
      await write(socket, text('4516-["x",{"_placeholder":true,"num":0}]'));
      streams.push(socket);
    });
    for (let number = 0; number < 15; number += 1) {
      streams.forEach((socket) => socket.writable && socket.write(frame(2, SMALL_ATTACHMENT)));
      await sleep(500);
    }
    return `${alive()} open`;
  };
}

/** Messages of which each fragment is followed by another one, up to nearly the largest message. */
export async function fragments({ port, token }) {
  const part = Buffer.alloc(16_000, 'a');
  const ended = await times(1_000, async () => {
    const socket = await admitted(port, token);
    await write(socket, frame(1, Buffer.concat([Buffer.from('4'), part]), false));
    const rest = Buffer.concat(Array.from({ length: 60 }, () => frame(0, part, false)));
    if (!(await write(socket, rest))) throw new Error('not written');
  });
  return `${ended} not sent, ${alive()} open`;
}

/** WebSockets that never send CONNECT. */
export async function speechless({ port }) {
  const refused = await times(1_000, async () => drain(await openWebSocket(port, engine(4, 'websocket'))));
  return `${refused} refused`;
}

/** Sessions that leave and join the namespace over and over, without reading. */
export async function pairs({ port, token }) {
  const pair = Buffer.concat([text('41'), text(token ? connectPacket(token) : '40')]);
  const many = Buffer.concat(Array.from({ length: 100 }, () => pair));
  let sent = 0;
  await times(20, async () => {
    const socket = drain(await admitted(port, token));
    for (let number = 0; number < 50; number += 1) {
      if (!(await write(socket, many))) break;
      sent += 100;
    }
  });
  return `${sent} pairs written, ${alive()} open`;
}

async function admitted(port, token) {
  const socket = await openWebSocket(port, engine(4, 'websocket'));
  socket.resume().on('end', () => socket.destroy());
  if (token) {
    await write(socket, text(connectPacket(token)));
    await sleep(300);
  }
  return socket;
}
