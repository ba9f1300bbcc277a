/** What greets each connection. */
export interface Welcome {
  userId: string;
  /** For a backend's `except_connection_ids`. */
  connectionId: string;
  rooms: string[];
}

/** How a room was caught up with. */
export interface RoomResumed {
  /** `false`: the gap could not be filled, and nothing of the room was replayed. */
  recovered: boolean;
  /** How many messages were replayed. */
  count: number;
  /** Where the room stands for this connection; absent when the connection is not in the room. */
  position?: string;
}

/** The events that Bugle itself sends, and their payloads. */
export interface BugleEvents {
  /** First on each connection, unless `socketio.welcome` of the server names another event or none. */
  connected: Welcome;
  /** All that was missed has been delivered. */
  'bugle:resumed': { rooms: Record<string, RoomResumed> };
  /** The number of unread messages of a mailbox has changed by a read or a deletion. */
  'bugle:unread': { room: string; count: number };
  /** The token expires soon; `expiresAt` is a time such as `2026-01-31T09:30:00.000Z`. A token function has been asked already. */
  'bugle:token_expiring': { expiresAt: string };
  /** Bugle is about to close the connection. */
  'bugle:disconnect': { code: string; reason: string; retry: boolean };
}

/**
 * The events that an app may listen to: its own (a type or an interface of names to payloads) and Bugle's. Without a map, every name
 * with any payload.
 */
export type Listenable<Events> = Events & Omit<BugleEvents, keyof Events>;

/** The map of an app that has not said which events there are. */
export type AnyEvents = Record<string, any>;
