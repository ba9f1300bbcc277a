import type { DirectMessage, MessageTopic, PendingMessage } from './direct_message.js';
import { BugleError } from './errors.js';

/** The maximum number of unconfirmed messages. */
const MAX_PENDING = 1_000;

interface Queue {
  messages: PendingMessage[];
  /** A message of this queue awaits its answer. The next one is sent after it, which keeps their order. */
  isBusy: boolean;
  /** Runs after a rate limit was exceeded, until the time that Bugle named. */
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** What an outbox needs of its owner. */
export interface OutboxDeps {
  isConnected(): boolean;
  send(message: PendingMessage): Promise<DirectMessage>;
  sent(message: DirectMessage, clientMessageId: string): void;
  changed(receiverId: string): void;
}

/**
 * Unconfirmed direct messages, in a queue for each receiver. A message is sent at once if there is a connection, else on the next one, and
 * again on each later connection until Bugle has answered. A message that Bugle refuses has failed: it waits for `retry` or `discard`.
 */
export class Outbox {
  readonly #queues = new Map<string, Queue>();
  /** Counts connections. A missing answer on an earlier connection is not a failure. */
  #connection = 0;

  constructor(private readonly deps: OutboxDeps) {}

  /** Unconfirmed messages to this receiver, in the order of writing. */
  to(receiverId: string): readonly PendingMessage[] {
    return this.#queues.get(receiverId)?.messages ?? [];
  }

  /** Adds a message and returns its `clientMessageId`. Throws a `BugleError` (`queue_full`) if 1,000 messages are unconfirmed. */
  add(receiverId: string, content: string, topic: MessageTopic): string {
    let count = 0;
    for (const { messages } of this.#queues.values()) count += messages.length;
    if (count >= MAX_PENDING) throw new BugleError('queue_full', `${MAX_PENDING} messages are not sent yet`);
    const queue: Queue = this.#queues.get(receiverId) ?? { messages: [], isBusy: false, timer: undefined };
    this.#queues.set(receiverId, queue);
    const clientMessageId = newId();
    const createdAt = new Date().toISOString();
    queue.messages.push({ clientMessageId, receiverId, content, topic, createdAt, status: 'sending', error: undefined, isUncertain: false });
    this.deps.changed(receiverId);
    void this.#flush(receiverId);
    return clientMessageId;
  }

  /** Sends a failed message again, under the same `clientMessageId`. */
  retry(clientMessageId: string): void {
    const message = this.#find(clientMessageId);
    if (message?.status !== 'failed') return;
    this.#replace(message, { status: 'sending', error: undefined });
    void this.#flush(message.receiverId);
  }

  /** Removes an unconfirmed message. Returns whether there was one. Bugle may still store it if it was already sent. */
  discard(clientMessageId: string): boolean {
    const message = this.#find(clientMessageId);
    if (!message) return false;
    this.#take(message);
    this.deps.changed(message.receiverId);
    return true;
  }

  /** Sends all unconfirmed messages on a new connection, except those with a permanent failure. */
  connected(): void {
    this.#connection += 1;
    for (const [receiverId, { messages }] of this.#queues) {
      for (const message of [...messages]) {
        if (message.status === 'failed' && message.error?.isTransient) this.#replace(message, { status: 'sending', error: undefined });
      }
      void this.#flush(receiverId);
    }
  }

  /** Removes all messages, before another user logs in. */
  clear(): void {
    for (const { timer } of this.#queues.values()) clearTimeout(timer);
    this.#queues.clear();
  }

  async #flush(receiverId: string): Promise<void> {
    const queue = this.#queues.get(receiverId);
    if (!queue || queue.isBusy) return;
    clearTimeout(queue.timer);
    queue.timer = undefined;
    queue.isBusy = true;
    while (this.deps.isConnected() && queue.timer === undefined && this.#isCurrent(queue, receiverId)) {
      const next = queue.messages.find(({ status }) => status === 'sending');
      if (!next) break;
      await this.#attempt(next, queue);
    }
    queue.isBusy = false;
  }

  async #attempt(message: PendingMessage, queue: Queue): Promise<void> {
    const connection = this.#connection;
    try {
      const sent = await this.deps.send(message);
      if (!this.#isCurrent(queue, message.receiverId)) return;
      const pending = this.#find(message.clientMessageId);
      if (pending) this.#take(pending);
      this.deps.sent(sent, message.clientMessageId);
    } catch (error) {
      if (this.#isCurrent(queue, message.receiverId)) this.#failed(message, queue, error as BugleError, connection);
    }
  }

  #failed({ clientMessageId, receiverId }: PendingMessage, queue: Queue, error: BugleError, connection: number): void {
    const message = this.#find(clientMessageId);
    if (!message) return;
    const isUnanswered = error.code === 'no_answer';
    if (isUnanswered && (connection !== this.#connection || !this.deps.isConnected())) {
      this.#replace(message, { isUncertain: true });
    } else if (message.isUncertain && error.code === 'conflict') {
      // Bugle has stored the message, and another device has deleted it since.
      this.discard(clientMessageId);
    } else if (error.retryAfter !== undefined && error.isTransient) {
      queue.timer = setTimeout(() => {
        queue.timer = undefined;
        void this.#flush(receiverId);
      }, error.retryAfter);
    } else {
      this.#replace(message, { status: 'failed', error, isUncertain: message.isUncertain || isUnanswered });
    }
  }

  /** Whether the queue is in use. After `clear` it is not. */
  #isCurrent(queue: Queue, receiverId: string): boolean {
    return this.#queues.get(receiverId) === queue;
  }

  #find(clientMessageId: string): PendingMessage | undefined {
    for (const { messages } of this.#queues.values()) {
      const found = messages.find((message) => message.clientMessageId === clientMessageId);
      if (found) return found;
    }
    return undefined;
  }

  #replace(message: PendingMessage, change: Partial<PendingMessage>): void {
    const { messages } = this.#queues.get(message.receiverId)!;
    messages[messages.indexOf(message)] = { ...message, ...change };
    this.deps.changed(message.receiverId);
  }

  #take(message: PendingMessage): void {
    const { messages } = this.#queues.get(message.receiverId)!;
    messages.splice(messages.indexOf(message), 1);
  }
}

/** Returns an id that no other message of the user has. `randomUUID` is missing in React Native and on pages without TLS. */
function newId(): string {
  if (typeof globalThis.crypto?.randomUUID === 'function') return crypto.randomUUID();
  const part = () => Math.random().toString(36).slice(2, 12);
  return `${Date.now().toString(36)}-${part()}-${part()}`;
}
