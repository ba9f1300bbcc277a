import { type RefObject, useEffect, useInsertionEffect, useMemo, useRef, useSyncExternalStore } from 'react';

import { Client } from './client.js';
import { type BugleError, reportTo } from './errors.js';
import type { AnyEvents } from './events.js';
import type { Options } from './options.js';
import type { Token } from './tokens.js';
import { followToken } from './user_change.js';

export interface UseBugleOptions extends Omit<Options, 'token'> {
  /**
   * As in `connect`; `null` or `undefined` while nobody is logged in: then there is no connection. Another text replaces the token of the
   * live connection; if it is another user's, there is a new connection.
   */
  token: Token | null | undefined;
}

export interface Bugle<Events extends object> {
  isConnected: boolean;
  /** Why there is no connection; `undefined` while there is one. */
  error: BugleError | undefined;
  /** Adds a handler, and returns what takes it out again: `useEffect(() => on('order:paid', show), [on])`. */
  on: Client<Events>['on'];
  updateToken: Client<Events>['updateToken'];
  send: Client<Events>['send'];
  forget: Client<Events>['forget'];
}

/**
 * Connects while the component is mounted. Every component that calls it has a connection of its own: call it once, high in the tree, and
 * hand the result down by a context.
 *
 * The functions stay the same until `url`, `path` or the kind of token (none, text, function) changes; then there is another connection.
 * Callbacks and the token function are always those of the last render; all other options those of the render that made the connection.
 */
export function useBugle<Events extends object = AnyEvents>(options: UseBugleOptions): Bugle<Events> {
  const { url, path, token } = options;
  const latest = useRef(options);
  useInsertionEffect(() => {
    latest.current = options;
  });
  const kind = token === null || token === undefined ? 'none' : typeof token;
  const client = useMemo(() => new Client<Events>(withLatest(options, latest)), [url, path, kind]);
  const bound = useMemo(() => boundTo(client), [client]);

  useEffect(() => {
    if (kind === 'none') return;
    client.open();
    return () => client.close();
  }, [client, kind]);

  const given = useRef({ client, token });
  useEffect(() => {
    const { client: before, token: old } = given.current;
    given.current = { client, token };
    if (typeof token !== 'string' || client !== before || token === old) return;
    followToken(client, token).catch((error: BugleError) => reportTo(latest.current.onError, error));
  }, [client, token]);

  const { isConnected, error } = useSyncExternalStore(bound.subscribe, bound.state, bound.state);
  const { on, updateToken, send, forget } = bound;
  return { isConnected, error, on, updateToken, send, forget };
}

function boundTo<Events extends object>(client: Client<Events>) {
  return {
    on: client.on.bind(client) as Client<Events>['on'],
    updateToken: client.updateToken.bind(client),
    send: client.send.bind(client),
    forget: client.forget.bind(client),
    subscribe: client.subscribe.bind(client),
    state: () => client.state,
  };
}

/** Options whose callbacks are those of the last render. */
function withLatest(options: UseBugleOptions, latest: RefObject<UseBugleOptions>): Options {
  const { token, onMessage } = options;
  return {
    ...options,
    token: typeof token === 'function' ? () => (latest.current.token as () => string | Promise<string>)() : (token ?? ''),
    onResumed: (rooms) => latest.current.onResumed?.(rooms),
    onGap: (room, resumed) => latest.current.onGap?.(room, resumed),
    onError: (error) => reportTo(latest.current.onError, error),
    // Where there is none, a message that no handler took is not to be acknowledged.
    ...(onMessage && { onMessage: (message) => latest.current.onMessage?.(message) }),
  };
}
