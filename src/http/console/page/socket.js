// Socket.IO 5 over Engine.IO 4 over WebSocket, as https://socket.io/docs/v4/socket-io-protocol/ and
// https://socket.io/docs/v4/engine-io-protocol/ have them.

const ENGINE = { open: "0", close: "1", ping: "2", pong: "3", message: "4" };
const PACKET = { connect: "0", disconnect: "1", event: "2", ack: "3", refused: "4", binaryEvent: "5", binaryAck: "6" };
const PACKET_TEXT = /^(\d)(?:(\d+)-)?(?:(\/[^,]*),?)?(\d+)?(.*)$/s;

// In Engine.IO 4 the server alone pings. To be refused a namespace that nobody has is the cheapest answer that it gives.
const NOWHERE = "/ping";
const PING_EVERY = 5_000;

/** One connection of a device. The handlers: connected, refused, event, ack, ping, closed. */
class DeviceSocket {
  #web;
  #token;
  #handlers;
  #acks = 0;
  #waiting = null;
  #pinged = 0;
  #timers = { ping: 0, death: 0 };
  #patience = 0;
  #why = "";

  constructor(url, token, handlers) {
    this.#token = token;
    this.#handlers = handlers;
    this.#web = new WebSocket(url);
    this.#web.binaryType = "arraybuffer";
    this.#web.onmessage = ({ data }) => (typeof data === "string" ? this.#text(data) : this.#attachment(data));
    this.#web.onclose = (event) => this.#closed(event);
  }

  /** Sends an event with one argument, a JSON text, or none; gives the number that its ack will have. */
  send(event, argument, wantsAck) {
    const id = wantsAck ? this.#acks++ : null;
    const body = argument === "" ? "" : `,${argument}`;
    this.#write(PACKET.event, `${id ?? ""}[${JSON.stringify(event)}${body}]`);
    return id;
  }

  close() {
    this.#why = "by this page";
    if (this.#web.readyState === WebSocket.OPEN) this.#write(PACKET.disconnect, "");
    this.#web.close();
  }

  #write(type, rest) {
    this.#web.send(ENGINE.message + type + rest);
  }

  #text(packet) {
    switch (packet[0]) {
      case ENGINE.open: {
        const { pingInterval, pingTimeout } = JSON.parse(packet.slice(1));
        this.#patience = pingInterval + pingTimeout;
        this.#isAlive();
        this.#write(PACKET.connect, this.#token === "" ? "" : JSON.stringify({ token: this.#token }));
        break;
      }
      case ENGINE.ping:
        this.#isAlive();
        this.#web.send(ENGINE.pong);
        break;
      case ENGINE.message:
        this.#packet(packet.slice(1));
        break;
      case ENGINE.close:
        this.#web.close();
        break;
    }
  }

  #packet(text) {
    const [, type, attachments, namespace, id, body] = PACKET_TEXT.exec(text);
    if (namespace === NOWHERE) {
      this.#handlers.ping(performance.now() - this.#pinged);
      return;
    }
    switch (type) {
      case PACKET.connect:
        this.#handlers.connected();
        this.#ping();
        break;
      case PACKET.refused:
        this.#why = JSON.parse(body).message;
        this.#handlers.refused(this.#why);
        this.#web.close();
        break;
      case PACKET.disconnect:
        this.#why = "by the server";
        this.#web.close();
        break;
      case PACKET.event:
      case PACKET.ack:
        this.#arrived({ isAck: type === PACKET.ack, id: Number(id), body, attachments: [] });
        break;
      case PACKET.binaryEvent:
      case PACKET.binaryAck:
        this.#waiting = { isAck: type === PACKET.binaryAck, id: Number(id), body, attachments: [], count: Number(attachments) };
        break;
    }
  }

  #attachment(bytes) {
    const message = this.#waiting;
    if (message?.attachments.push(new Uint8Array(bytes)) === message?.count) {
      this.#waiting = null;
      this.#arrived(message);
    }
  }

  #arrived({ isAck, id, body, attachments }) {
    if (isAck) {
      this.#handlers.ack(id, entriesOf(body), attachments);
    } else {
      const [name, ...given] = entriesOf(body);
      this.#handlers.event(JSON.parse(name), given, attachments);
    }
  }

  #ping() {
    this.#pinged = performance.now();
    this.#write(PACKET.connect, `${NOWHERE},`);
    this.#timers.ping = setTimeout(() => this.#ping(), PING_EVERY);
  }

  #isAlive() {
    clearTimeout(this.#timers.death);
    this.#timers.death = setTimeout(() => {
      this.#why = "the server has fallen silent";
      this.#web.close();
    }, this.#patience);
  }

  #closed({ code, reason }) {
    clearTimeout(this.#timers.ping);
    clearTimeout(this.#timers.death);
    this.#handlers.closed(this.#why || reason || (code === 1006 ? "the connection was lost, or could not be made" : `code ${code}`));
  }
}
