/** How many emits are unanswered at a time. */
const AHEAD = 16;
/** How many have been answered when a load counts as flowing. */
const FLOWING = 100;

class Load {
  /** How many connections took an emit, by the receipts that came: in sum. */
  enqueued = 0;
  #answered = 0;
  #setFlowing;
  /** Fulfilled when many were answered. */
  flowing = new Promise((resolve) => (this.#setFlowing = resolve));

  count(receipt) {
    this.enqueued += receipt.enqueued;
    this.#answered += 1;
    if (this.#answered === FLOWING) this.#setFlowing();
  }
}

/** Emits numbers to a user by EmitStream until the server ends the stream. */
export class StreamedEmits extends Load {
  /** The error with which the stream ended. */
  ended;

  constructor(backend, user, event) {
    super();
    const stream = backend.emitStream();
    let number = 0;
    const emit = () => {
      stream.write({ correlation_id: `${number}`, emit: { user_id: user, event, json: `${number}` } });
      number += 1;
    };
    this.ended = new Promise((resolve) => stream.on('error', resolve));
    stream.on('data', ({ result }) => {
      this.count(result.receipt);
      emit();
    });
    for (let ahead = 0; ahead < AHEAD; ahead += 1) emit();
  }
}

/** Emits texts to a user by EmitToUser, several calls at a time, until they are refused. */
export class UnaryEmits extends Load {
  /** The error of each caller's last call. */
  ended;

  constructor(backend, user, event) {
    super();
    const callers = Array.from({ length: AHEAD }, () => this.#callUntilRefused(backend, user, event));
    this.ended = Promise.all(callers);
  }

  async #callUntilRefused(backend, user, event) {
    for (;;) {
      try {
        this.count(await backend.emit(user, event, { json: '"text"' }));
      } catch (refusal) {
        return refusal;
      }
    }
  }
}
