import { alive, open, times, write } from '../raw.js';

/** Pipelined requests whose answers are not read. */
export async function pipelines({ port }) {
  const requests = 'GET / HTTP/1.1\r\nHost: bugle\r\n\r\n'.repeat(100_000);
  await times(100, async () => write(await open(port), requests, 8_000));
  return `${alive()} open`;
}

/** The same for answers of 1 MB each, as they are and compressed. */
export async function large({ port, reader }) {
  const encodings = ['identity', 'gzip'];
  await times(200, async (number) => {
    const headers = `Host: bugle\r\nAuthorization: Bearer ${reader}\r\nAccept-Encoding: ${encodings[number % 2]}\r\n`;
    await write(await open(port), `GET /bugle/retained HTTP/1.1\r\n${headers}\r\n`.repeat(12));
  });
  return `${alive()} open`;
}
