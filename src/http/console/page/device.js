const ACK_PATIENCE = 10_000;
const devices = document.querySelector('meta[name="devices"]').content;

/** The page as a device. */
const device = {
  socket: null,
  /** Acks that are waited for, by their number. */
  asked: new Map(),
  form: byId("connect"),
  sending: byId("send"),

  connect() {
    const { path, query, token } = this.form.elements;
    show(byId("connect-problem"), "");
    this.leave();
    let url;
    try {
      url = urlOf(path.value, query.value);
    } catch {
      show(byId("connect-problem"), "Path and query make no URL.");
      return;
    }
    this.state("busy", "Connecting");
    const socket = new DeviceSocket(url, token.value.trim(), this.handlers(() => this.socket === socket));
    this.socket = socket;
  },

  /** What a connection does to the page, for as long as it is the page's. */
  handlers(isCurrent) {
    return {
      connected: () => {
        if (!isCurrent()) return;
        this.state("on", "Connected · WebSocket");
        journal.note("Connected");
      },
      refused: (message) => {
        if (isCurrent()) show(byId("connect-problem"), `Refused: ${message}`);
      },
      event: (name, given, attachments) => journal.add("received", name, given, attachments),
      ack: (id, given, attachments) => this.answered(id, given, attachments),
      ping: (duration) => {
        if (isCurrent()) show(byId("ping"), `ping ${milliseconds(duration)}`);
      },
      closed: (why) => {
        journal.note(`Disconnected: ${why}`);
        if (isCurrent()) this.ended();
      },
    };
  },

  leave() {
    this.socket?.close();
    this.ended();
  },

  ended() {
    this.socket = null;
    this.asked.clear();
    this.state("off", "Disconnected");
    show(byId("ping"), "");
  },

  state(state, text) {
    const status = byId("status");
    if (status.dataset.state !== state) {
      status.dataset.state = state;
      status.querySelector("span").textContent = text;
    }
    this.form.elements.leave.disabled = state === "off";
    this.sending.querySelector("[type=submit]").disabled = state !== "on";
  },

  send() {
    const { event, argument, ack } = this.sending.elements;
    const text = argument.value.trim();
    const fault = text === "" ? null : faultOf(text);
    show(byId("send-problem"), fault ?? "");
    argument.setAttribute("aria-invalid", String(fault !== null));
    if (fault || byId("status").dataset.state !== "on") return;
    const name = event.value;
    const id = this.socket.send(name, text, ack.checked);
    journal.add("sent", name, text === "" ? [] : [text]);
    byId("ack").hidden = true;
    if (id === null) return;
    const asked = { name, at: performance.now() };
    this.asked.set(id, asked);
    // Of the next connection another event may have the same number.
    setTimeout(() => this.asked.get(id) === asked && this.unanswered(id), ACK_PATIENCE);
  },

  answered(id, given, attachments) {
    const asked = this.asked.get(id);
    if (!asked) return;
    this.asked.delete(id);
    journal.add("ack", asked.name, given, attachments);
    const after = `Ack of ${asked.name} after ${milliseconds(performance.now() - asked.at)}`;
    const answer = [...given.map(clipped).map(readable), ...attachments.map(described)].join(",\n");
    // As Bugle itself refuses an event.
    const isGood = !/^\{\s*"error"/.test(given[0] ?? "");
    showResult(byId("ack"), isGood, element("p", "title", after), element("pre", "", answer || "without arguments"));
  },

  unanswered(id) {
    const asked = this.asked.get(id);
    if (!asked) return;
    this.asked.delete(id);
    showResult(byId("ack"), false, element("p", "title", `No ack of ${asked.name} within ${ACK_PATIENCE / 1000} s`));
  },
};

function urlOf(path, query) {
  const url = new URL(devices);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.pathname = `/${path.trim().replace(/^\/+|\/+$/g, "")}/`;
  url.search = query.trim().replace(/^\?/, "");
  url.searchParams.set("EIO", "4");
  url.searchParams.set("transport", "websocket");
  return url;
}

byId("devices").textContent = devices;
onSubmit(device.form, () => device.connect());
onSubmit(device.sending, () => device.send());
device.form.elements.leave.addEventListener("click", () => device.leave());
