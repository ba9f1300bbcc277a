const MOST_ENTRIES = 1_000;
/** How much of a text is kept, in characters. */
const MOST_TEXT = 16_384;
const HEAD = 24;
/** Where Socket.IO puts an attachment. */
const PLACEHOLDER = /\{\s*"_placeholder"\s*:\s*true\s*,\s*"num"\s*:\s*(\d+)\s*\}/g;
const ARROWS = { received: ["↓", "received"], sent: ["↑", "sent"], ack: ["↩", "ack"], note: ["•", "connection"] };

const encoder = new TextEncoder();
const hexadecimal = (data) => [...data].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** The log: the newest entries, of which a filter may hide some. */
const journal = {
  list: byId("entries"),
  rows: [],
  waiting: [],
  missed: 0,
  isPaused: false,
  isScheduled: false,

  /** Adds an entry. `given`: the arguments, each a JSON text. */
  add(kind, name, given = [], attachments = []) {
    const all = given.join(", ");
    const json = attachments.length > 0 ? all.replace(PLACEHOLDER, "") : all;
    const size = attachments.reduce((sum, data) => sum + data.length, encoder.encode(json).length);
    const text = attachments.length > 0 && json !== "" ? all.replace(PLACEHOLDER, "binary#$1") : json;
    this.put({ kind, name, text: clipped(text), size, binary: attachments.map(described), time: new Date() });
  },

  /** Adds what became of the connection. */
  note(name) {
    this.put({ kind: "note", name, text: "", size: null, binary: [], time: new Date() });
  },

  put(entry) {
    this.waiting.push(entry);
    if (this.isPaused) this.missed += 1;
    if (this.waiting.length > MOST_ENTRIES) this.waiting.shift();
    // Events may come faster than a screen can show them.
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.draw();
    });
  },

  draw() {
    if (!this.isPaused) {
      const fresh = this.waiting.splice(0).map(rowOf).reverse();
      this.list.prepend(...fresh.map((row) => row.item));
      this.rows.unshift(...fresh);
      for (const row of this.rows.splice(MOST_ENTRIES)) row.item.remove();
      fresh.forEach((row) => this.sift(row));
    }
    this.count();
  },

  sift(row) {
    row.item.hidden = !row.sought.includes(byId("filter").value.trim().toLowerCase());
  },

  count() {
    const all = this.rows.length;
    const shown = this.rows.filter((row) => !row.item.hidden).length;
    const number = (count) => count.toLocaleString("en");
    const parts = [shown === all ? `${number(all)} shown` : `${number(shown)} of ${number(all)} shown`];
    if (this.isPaused) parts.push(`paused, ${number(this.missed)} new`);
    byId("shown").textContent = parts.join(" · ");
    byId("shown").hidden = all === 0 && !this.isPaused;
    byId("empty").hidden = all > 0;
  },

  pause() {
    this.isPaused = !this.isPaused;
    this.missed = 0;
    byId("pause").setAttribute("aria-pressed", String(this.isPaused));
    byId("pause").textContent = this.isPaused ? "Resume" : "Pause";
    this.draw();
  },

  clear() {
    this.rows = [];
    this.waiting = [];
    this.missed = 0;
    this.list.replaceChildren();
    this.count();
  },
};

function clipped(text) {
  return text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}…` : text;
}

/** For reading: what was clipped is no JSON any more, and stays as it is. */
function readable(text) {
  return text.length > MOST_TEXT ? `${text} (the rest is not kept)` : indented(text);
}

function described(data) {
  const head = hexadecimal(data.subarray(0, HEAD));
  return `binary, ${bytes(data.length)}: ${head}${data.length > HEAD ? " …" : ""}`;
}

function clock(time) {
  const padded = (number, length) => String(number).padStart(length, "0");
  const parts = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => padded(part, 2));
  return `${parts.join(":")}.${padded(time.getMilliseconds(), 3)}`;
}

function rowOf({ kind, name, text, size, binary, time }) {
  const item = byId("entry").content.cloneNode(true).firstElementChild;
  const [arrow, meaning] = ARROWS[kind];
  const find = (selector) => item.querySelector(selector);
  const shown = [text, ...binary].filter((part) => part !== "").join("  ");
  item.dataset.kind = kind;
  find(".arrow").textContent = arrow;
  find(".arrow").setAttribute("role", "img");
  find(".arrow").setAttribute("aria-label", meaning);
  find("b").textContent = name;
  find(".size").textContent = size === null ? "" : bytes(size);
  find("time").textContent = clock(time);
  find("time").dateTime = time.toISOString();
  find("summary code").textContent = shown.slice(0, 300);
  find("details").addEventListener("toggle", () => {
    const whole = [readable(text), ...binary].filter((part) => part !== "").join("\n");
    find("pre").textContent = whole || (kind === "note" ? name : "no argument");
  });
  return { item, sought: `${name}\n${shown}`.toLowerCase() };
}

byId("filter").addEventListener("input", () => {
  journal.rows.forEach((row) => journal.sift(row));
  journal.count();
});
byId("pause").addEventListener("click", () => journal.pause());
byId("clear").addEventListener("click", () => journal.clear());
