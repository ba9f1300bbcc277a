import { once } from 'node:events';
import { createServer } from 'node:http';

import jwt from 'jsonwebtoken';
import { Server } from 'socket.io';

/** Node's own Socket.IO server, to ask the same of it as of Bugle. It believes every token. */
export class Reference {
  #http = createServer();
  #io = new Server(this.#http, { allowEIO3: true });

  static async start(context) {
    const reference = new Reference();
    context.after(() => reference.close());
    await once(reference.#http.listen(0, '127.0.0.1'), 'listening');
    return reference;
  }

  constructor() {
    this.#io.on('connection', (socket) => {
      const { auth, query } = socket.handshake;
      const { sub } = jwt.decode(auth.token ?? query.token);
      socket.join(sub);
      socket.emit('connected', { userId: sub });
    });
  }

  get port() {
    return this.#http.address().port;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  token(user) {
    return jwt.sign({ sub: user }, 'any');
  }

  /** Sends a message to a user. */
  async send(user, payload) {
    this.#io.to(user).emit('m', payload);
  }

  close() {
    this.#io.close();
    this.#http.closeAllConnections();
  }
}
