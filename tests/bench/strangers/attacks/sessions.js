import { ask, closeIdle, drain, engine, open, openSession, openWebSocket, text, times } from '../raw.js';

/** Sessions that are opened and left. */
export async function left({ port, token, tokens }) {
  const refused = await times(10_000, (number) => openSession(port, token && tokens[number % tokens.length]), 50);
  closeIdle();
  return `${refused} refused`;
}

/** Many polls of each session at once. */
export async function polls({ port, token }) {
  const ids = [];
  await times(100, async () => ids.push(await openSession(port, token)), 50);
  closeIdle();
  await times(2_000, async (number) => {
    const socket = drain(await open(port));
    socket.write(`GET ${engine(4, 'polling', ids[number % ids.length])} HTTP/1.1\r\nHost: bugle\r\n\r\n`);
  });
  return `${ids.length} sessions`;
}

/** Upgrades that are probed and never completed, while nobody polls. */
export async function upgrades({ port, token }) {
  const refused = await times(500, async () => {
    const sid = await openSession(port, token);
    const socket = await openWebSocket(port, engine(4, 'websocket', sid));
    drain(socket).resume();
    socket.write(text('2probe'));
  }, 50);
  closeIdle();
  return `${refused} refused`;
}

/** Requests for sessions that do not exist, with ids of every length. */
export async function strays({ port }) {
  await times(20_000, (number) => ask(port, 'GET', engine(4, 'polling', 'x'.repeat(1 + (number % 200)))), 50);
  closeIdle();
  return '';
}
