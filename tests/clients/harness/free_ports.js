import { createServer } from 'node:net';
import { randomInt } from 'node:crypto';
import { promisify } from 'node:util';

/** The system takes ports from 32768 on for outgoing connections: a server could not have one of those again. */
const [LOWEST, HIGHEST] = [20_000, 32_000];

/** Ports on which nothing listens, for a server that comes back to them. */
export async function freePorts(count) {
  const ports = new Set();
  while (ports.size < count) {
    const port = randomInt(LOWEST, HIGHEST);
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

async function isFree(port) {
  const server = createServer();
  const bound = new Promise((resolve) => {
    server.once('listening', () => resolve(true)).once('error', () => resolve(false));
  });
  server.listen(port, '127.0.0.1');
  if (!(await bound)) return false;
  await promisify(server.close.bind(server))();
  return true;
}
