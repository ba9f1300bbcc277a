/** A message as a handler is given it. */
export interface Message<Payload = unknown> {
  /** The event's name. */
  event: string;
  /** The event's payload: JSON, bytes (`ArrayBuffer`, in Node `Buffer`), or `null` if it has none. */
  payload: Payload;
  /** Of a kept message: its id, the same whenever it is delivered. */
  id?: string;
  /** Of a kept message and of a value had over REST: the room that it was sent to. */
  room?: string;
  /** Of a kept message: its place in its room, an opaque text. */
  position?: string;
  /** How it came: over Socket.IO, or over REST because the socket could not be opened. */
  source: 'socket' | 'rest';
}

/** What identifies a message that Bugle keeps. */
export interface Meta {
  id: string;
  room: string;
  position: string;
}

/** An event as it came over Socket.IO, taken apart. */
export interface Received {
  message: Message;
  meta: Meta | undefined;
  /** Present if the backend asked for an acknowledgement. */
  acknowledge: ((...reply: unknown[]) => void) | undefined;
}

/** Takes apart the arguments `(payload)`, `(payload, meta)`, `(payload, ack)` and `(payload, meta, ack)`. */
export function received(event: string, args: unknown[]): Received {
  const last = args.at(-1);
  const acknowledge = typeof last === 'function' ? (last as Received['acknowledge']) : undefined;
  const [payload = null, second] = acknowledge ? args.slice(0, -1) : args;
  const meta = isMeta(second) ? second : undefined;
  return { message: { event, payload, ...meta, source: 'socket' }, meta, acknowledge };
}

function isMeta(value: unknown): value is Meta {
  if (typeof value !== 'object' || value === null) return false;
  const { id, room, position } = value as Record<string, unknown>;
  return typeof id === 'string' && typeof room === 'string' && typeof position === 'string';
}
