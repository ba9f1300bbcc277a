/** What a browser sends with every request: memory that a server spends on headers is part of a connection's memory. */
const BROWSER = {
  'User-Agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36',
  'Accept-Language': 'en-US,en;q=0.9',
  'Accept-Encoding': 'gzip, deflate, br',
  'Cache-Control': 'no-cache',
  Pragma: 'no-cache',
};
const HANDSHAKE = {
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

export const [TEXT, CLOSE, PING, PONG] = [1, 8, 9, 10];
const MASK = [1, 2, 3, 4];

/** An HTTP/1.1 request as a browser sends it. */
export function browserRequest(method, path, body) {
  const type = body === undefined ? {} : { 'Content-Type': 'text/plain;charset=UTF-8' };
  return request(method, path, { ...BROWSER, ...type }, body);
}

/** The request that opens a WebSocket, without extensions. */
export function upgradeRequest(path) {
  return request('GET', path, { ...HANDSHAKE, ...BROWSER });
}

/** An HTTP/1.1 request with these headers and what HTTP itself requires. */
export function request(method, path, headers, body) {
  const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
  const lines = Object.entries({ Host: 'localhost', ...headers, ...length }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body ?? ''}`;
}

/** A masked WebSocket frame: a whole message, of less than 64 KiB. */
export function frame(opcode, payload) {
  const body = Buffer.from(payload);
  const length = body.length < 126 ? [0x80 | body.length] : [0x80 | 126, body.length >> 8, body.length & 0xff];
  const masked = body.map((byte, index) => byte ^ MASK[index % 4]);
  return Buffer.concat([Buffer.from([0x80 | opcode, ...length, ...MASK]), masked]);
}

/** The WebSocket frame at the beginning of these bytes and its length. Undefined: it is not complete. */
export function parseFrame(bytes) {
  if (bytes.length < 2) return undefined;
  const short = bytes[1] & 0x7f;
  const head = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (bytes.length < head) return undefined;
  const size = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (bytes.length < head + size) return undefined;
  return { item: { opcode: bytes[0] & 0x0f, payload: bytes.subarray(head, head + size) }, length: head + size };
}

/** The HTTP response at the beginning of these bytes and its length. Undefined: it is not complete. */
export function parseResponse(bytes) {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const head = bytes.toString('latin1', 0, end);
  const status = Number(head.slice(9, 12));
  const size = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? NaN);
  if (status >= 200 && Number.isNaN(size)) throw new Error(`an answer without Content-Length: ${head}`);
  const length = end + 4 + (status < 200 ? 0 : size);
  if (bytes.length < length) return undefined;
  return { item: { status, body: bytes.toString('utf8', end + 4, length) }, length };
}
