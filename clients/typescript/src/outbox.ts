import type { DirectMessage, MessageTopic, PendingMessage } from './direct_message.js';
import { BugleError } from './errors.js';

/** How many messages may wait to be sent. */
const MAX_PENDING = 1_000;

interface Queue {
  messages: PendingMessage[];
  /** A message of this queue is being sent: the next one waits for its answer, which keeps their order. */
  isBusy: boolean;
  /** Bugle said to try again later. */
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** The client's part of the outbox: sends, and is told what became of it. */
export interface OutboxDeps {
  isConnected(): boolean;
  send(message: PendingMessage): Promise<DirectMessage>;
  sent(message: DirectMessage, clientMessageId: string): void;
  changed(receiverId: string): void;
}

/**
 * Direct messages that are not confirmed yet, in a queue for each receiver. Each is sent under its `clientMessageId` until Bugle has answered: at
 * once if there is a connection, else on the next one. A message that Bugle refuses fails, and waits for `retry` or `discard`.
 */
export class Outbox {
  readonly #queues = new Map<string, Queue>();
  /** Counts connections: an answer that is missing on an earlier one is no failure. */
  #connection = 0;

  constructor(private readonly deps: OutboxDeps) {}

  /** What is not confirmed to this receiver, in the order in which it was written. */
  to(receiverId: string): readonly PendingMessage[] {
    return this.#queues.get(receiverId)?.messages ?? [];
  }

  /** Takes a message in; its `clientMessageId`. Throws a `BugleError` (`queue_full`) if 1,000 messages wait. */
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

  /** Takes a message out that is not confirmed; whether it was there. If it is being sent, Bugle may store it all the same. */
  discard(clientMessageId: string): boolean {
    const message = this.#find(clientMessageId);
    if (!message) return false;
    this.#take(message);
    this.deps.changed(message.receiverId);
    return true;
  }

  /** There is a new connection: sends what is not confirmed, also what has failed for a reason that may be over. */
  connected(): void {
    this.#connection += 1;
    for (const [receiverId, { messages }] of this.#queues) {
      for (const message of [...messages]) {
        if (message.status === 'failed' && message.error?.isTransient) this.#replace(message, { status: 'sending', error: undefined });
      }
      void this.#flush(receiverId);
    }
  }

  /** Forgets all messages: another user comes. */
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
      // Bugle has stored it, and another device has deleted it since.
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

  /** Whether the queue is there still; it is not after `clear`. */
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

/** An id that no other message of the user has. `randomUUID` is missing in React Native and on pages without TLS. */
function newId(): string {
  if (typeof globalThis.crypto?.randomUUID === 'function') return crypto.randomUUID();
  const part = () => Math.random().toString(36).slice(2, 12);
  return `${Date.now().toString(36)}-${part()}-${part()}`;
}
