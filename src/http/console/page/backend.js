const POLL_EVERY = 2_000;
/** Where the endpoints are, also behind a proxy that puts the console elsewhere. */
const api = `${location.pathname.replace(/\/+$/, "")}/api`;

/** A refusal, as the endpoints say it. */
class Refusal extends Error {
  constructor(status, { code, message, violations }) {
    super(message);
    Object.assign(this, { status, code, violations });
  }
}

/** The page as a backend. */
const backend = {
  key: byId("key"),
  emitting: byId("emit"),
  disconnecting: byId("disconnect"),
  poll: 0,

  /** Asks an endpoint, and gives its answer or throws why there is none. */
  async ask(endpoint, body) {
    const headers = { authorization: `Bearer ${this.key.elements.key.value.trim()}` };
    if (body) headers["content-type"] = "application/json";
    const request = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) };
    const response = await fetch(`${api}/${endpoint}`, { ...request, cache: "no-store", credentials: "omit" });
    const answer = await response.json();
    if (!response.ok) throw new Refusal(response.status, answer.error);
    return answer;
  },

  async emit() {
    const { audience, target, event, payload, volatile, envelope, retain, store, collapse_key: key } =
      this.emitting.elements;
    const emit = {
      [audience.value]: audience.value === "everyone" ? true : target.value,
      event: event.value,
      options: {
        volatile: volatile.checked,
        envelope: envelope.checked,
        retain: retain.checked,
        store: store.checked,
        collapse_key: key.value,
      },
    };
    const json = payload.value.trim();
    if (json !== "") emit.json = json;
    await this.result("receipt", async () => {
      const receipt = await this.ask("emit", emit);
      return [element("p", "title", "Receipt"), factsOf(receipt)];
    });
  },

  async disconnect() {
    const user = this.disconnecting.elements.user.value;
    await this.result("disconnected", async () => {
      const { disconnected } = await this.ask("disconnect", { user_id: user });
      const text = disconnected === 1 ? "1 connection closed" : `${disconnected} connections closed`;
      return [element("p", "title", text)];
    });
  },

  async result(id, run) {
    try {
      showResult(byId(id), true, ...(await run()));
    } catch (error) {
      showResult(byId(id), false, ...refusalOf(error));
    }
  },

  /** Asks for the counts again and again, while there is a key that may and somebody looks. */
  async count() {
    clearTimeout(this.poll);
    const key = this.key.elements.key.value.trim();
    if (key === "" || document.hidden) return;
    try {
      const counts = await this.ask("stats");
      if (key === this.key.elements.key.value.trim()) this.counted(counts, "");
    } catch (error) {
      this.counted({}, textOf(error));
      // Asking again would change nothing.
      if (error.status === 401 || error.status === 403) return;
    }
    clearTimeout(this.poll);
    this.poll = setTimeout(() => this.count(), POLL_EVERY);
  },

  counted(counts, problem) {
    for (const name of ["users", "connections", "rooms"]) {
      byId(name).textContent = counts[name]?.toLocaleString("en") ?? "–";
    }
    if (byId("key-problem").textContent !== problem) show(byId("key-problem"), problem);
  },

  /** Shows the field that the chosen audience needs. */
  aim() {
    const { audience, target } = this.emitting.elements;
    const isEveryone = audience.value === "everyone";
    byId("target").hidden = isEveryone;
    byId("target").querySelector("span").textContent = audience.value === "room" ? "Room" : "User id";
    target.disabled = isEveryone;
  },
};

function textOf(error) {
  if (error instanceof Refusal) return error.message;
  return error instanceof TypeError ? "Bugle cannot be reached, or the API key fits no header." : String(error);
}

function refusalOf(error) {
  const violations = error.violations ?? [];
  const title = element("p", "title", `Refused: ${error.code ?? "no answer"}`);
  if (violations.length === 0) return [title, element("p", "", textOf(error))];
  const each = violations.map(({ field, description }) => element("li", "", element("code", "", field), ` ${description}`));
  return [title, element("ul", "violations", ...each)];
}

function factsOf(receipt) {
  const facts = Object.entries(receipt).map(([name, value]) => {
    const shown = typeof value === "number" ? value.toLocaleString("en") : String(value);
    return element("div", name === "message_id" ? "wide" : "", element("dt", "", name), element("dd", "", shown));
  });
  return element("dl", "facts", ...facts);
}

onSubmit(backend.key, () => backend.count());
onSubmit(backend.emitting, () => backend.emit());
onSubmit(backend.disconnecting, () => backend.disconnect());
backend.emitting.addEventListener("change", () => backend.aim());
document.addEventListener("visibilitychange", () => backend.count());
