import { browserRequest, frame, parseFrame, parseResponse, PING, PONG, TEXT } from './wire.js';

/** The path of plain WebSockets in Bugle's configuration. */
export const PLAIN_PATH = '/plain';

const WIDTH = 16;
const ENGINE = '/socket.io/?EIO=4&transport=';
const POLLING = `${ENGINE}polling`;
const [ENGINE_CLOSE, ENGINE_PING, ENGINE_PONG] = ['1', '2', '3'];
const WELCOME = '42["connected"';

/** Socket.IO over WebSocket alone, until the event that greets the device. */
export const socketIo = {
  width: WIDTH,
  async connect(crowd, number) {
    const connection = await crowd.open(number);
    await connection.upgrade(`${ENGINE}websocket`);
    await connection.readMessage('0');
    connection.write(frame(TEXT, connectPacket(crowd, number)));
    await connection.readMessage(WELCOME);
    connection.listen(parseFrame, ({ opcode, payload }) => {
      if (opcode === TEXT && payload.toString() === ENGINE_PING) connection.write(frame(TEXT, ENGINE_PONG));
      else answerPing(connection, opcode, payload);
    });
    return () => connection.close();
  },
};

/** A plain WebSocket of Bugle, whose first message brings the token. Bugle does not answer it. */
export const plainWebSocket = {
  width: WIDTH,
  connect: (crowd, number) => {
    const message = JSON.stringify({ type: 'auth', access_token: crowd.token(number) });
    return webSocket(crowd, number, PLAIN_PATH, message);
  },
};

/** A WebSocket without anything above it. */
export function bareWebSocket(path) {
  return { width: WIDTH, connect: (crowd, number) => webSocket(crowd, number, path) };
}

/** A Socket.IO session that polls, between two polls. The sessions of an address use one connection in turn, and close it. */
export const session = {
  width: 1,
  async connect(crowd, number) {
    const path = await openSession(await crowd.shared(number), crowd, number);
    return () => closeSession(crowd, number, path);
  },
};

/** A Socket.IO session that polls, with a poll that the server has not answered, on a connection of its own. */
export const heldPoll = {
  width: WIDTH,
  async connect(crowd, number) {
    const connection = await crowd.open(number);
    const path = await openSession(connection, crowd, number);
    let isLeaving = false;
    const poll = () => connection.write(browserRequest('GET', path));
    connection.listen(parseResponse, ({ status, body }) => {
      if (isLeaving) return;
      if (status !== 200) crowd.lose(`a poll was answered with ${status} ${body}`);
      else if (body === ENGINE_PING) connection.write(browserRequest('POST', path, ENGINE_PONG));
      else poll();
    });
    poll();
    return async () => {
      isLeaving = true;
      // On a second connection, as a browser does while a poll is held.
      const second = await crowd.open(number);
      await second.ask('POST', path, ENGINE_CLOSE);
      for (const used of [second, connection]) used.close();
    };
  },
};

async function webSocket(crowd, number, path, message) {
  const connection = await crowd.open(number);
  await connection.upgrade(path);
  if (message) connection.write(frame(TEXT, message));
  connection.listen(parseFrame, ({ opcode, payload }) => answerPing(connection, opcode, payload));
  return () => connection.close();
}

function answerPing(connection, opcode, payload) {
  if (opcode === PING) connection.write(frame(PONG, payload));
}

/** Opens a session up to the event that greets the device; the path of its requests. */
async function openSession(connection, crowd, number) {
  const { sid } = JSON.parse((await connection.ask('GET', POLLING)).slice(1));
  const path = `${POLLING}&sid=${sid}`;
  await connection.ask('POST', path, connectPacket(crowd, number));
  for (let body = ''; !body.includes(WELCOME); ) body = await connection.ask('GET', path);
  return path;
}

async function closeSession(crowd, number, path) {
  const connection = await crowd.shared(number);
  await connection.ask('POST', path, ENGINE_CLOSE);
}

function connectPacket(crowd, number) {
  return `40${JSON.stringify({ token: crowd.token(number) })}`;
}
