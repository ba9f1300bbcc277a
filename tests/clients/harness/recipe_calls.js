import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

/** A recipe's backend that reads calls from its standard input, a line each, and answers them in order. */
export class Caller {
  #recipe;
  #program;

  static start(context, recipe, program) {
    return new Caller(recipe, recipe.backend(context, program));
  }

  constructor(recipe, program) {
    this.#recipe = recipe;
    this.#program = program;
  }

  /** The answer to a call, or the refusal: `{ refused, message }`. */
  async ask(name, ...args) {
    this.#program.tell([name, ...args]);
    const { answer, ...other } = await this.#program.lines.next();
    assert.equal(other.call, name);
    return other.refused ? other : answer;
  }

  /** The answer to a call, which is one RPC, and this one. */
  async askBy(method, name, ...args) {
    const own = { method: `bugle.v1.${method}`, code: 'OK' };
    const counts = () => Promise.all([{}, own].map((labels) => this.#recipe.metric('bugle_grpc_calls_total', labels)));
    const before = await counts();
    const answer = await this.ask(name, ...args);
    assert.deepEqual(await counts(), before.map((count) => count + 1), `${name} is one ${method}`);
    return answer;
  }
}

const FENCE = 'fence ';

/** The events, each with its payload, that a user's device printed and nobody took, up to now: nothing that was sent is on the way. */
export async function heardSoFar(recipe, user, device) {
  const fence = FENCE + randomUUID();
  const { enqueued } = await recipe.server.backend.emit(user, fence);
  assert.ok(enqueued > 0, `${user} has a device`);
  const heard = [];
  for (;;) {
    const { event, payload } = await device.next('event');
    if (event === fence) return heard;
    if (!event.startsWith(FENCE)) heard.push([event, ...payload]);
  }
}
