import { createContext, type RefObject, useContext, useEffect, useInsertionEffect, useMemo, useRef, useSyncExternalStore } from 'react';

import { Client } from './client.js';
import { Conversation, type ConversationOptions, type ConversationState } from './conversation.js';
import { Conversations, type ConversationsOptions, type ConversationsState } from './conversations.js';
import type { DirectMessages } from './direct_messages.js';
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
  /** The user's direct messages: for the other hooks. */
  messages: DirectMessages;
}

/** What `BugleProvider` hands to the hooks below it. */
const BugleContext = createContext<Pick<Bugle<never>, 'messages'> | undefined>(undefined);

/** Hands what `useBugle` has returned to `useConversation` and `useConversations` below: `<BugleProvider value={bugle}>`. */
export const BugleProvider = BugleContext.Provider;

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
  return {
    isConnected,
    error,
    on,
    updateToken,
    send,
    forget,
    get messages() {
      return client.messages;
    },
  };
}

export interface InBugle {
  /** What `useBugle` has returned, where no `BugleProvider` is above. */
  bugle?: Pick<Bugle<never>, 'messages'>;
}

export type UseConversation = ConversationState &
  Pick<Conversation, 'send' | 'retry' | 'remove' | 'typing' | 'loadMore' | 'markRead' | 'reload'>;

/**
 * The conversation with a user, while the component is mounted. The functions stay the same until the user or the client changes. Options other than
 * `bugle` are read once for each conversation.
 */
export function useConversation(userId: string, options: ConversationOptions & InBugle = {}): UseConversation {
  const messages = useMessages(options);
  const conversation = useMemo(() => new Conversation(messages, userId, options), [messages, userId]);
  const actions = useMemo(
    () => ({
      send: conversation.send.bind(conversation),
      retry: conversation.retry.bind(conversation),
      remove: conversation.remove.bind(conversation),
      typing: conversation.typing.bind(conversation),
      loadMore: conversation.loadMore.bind(conversation),
      markRead: conversation.markRead.bind(conversation),
      reload: conversation.reload.bind(conversation),
    }),
    [conversation],
  );
  return { ...useStarted(conversation), ...actions };
}

export type UseConversations = ConversationsState & Pick<Conversations, 'loadMore' | 'reload'>;

/** The user's conversations, while the component is mounted. Options other than `bugle` are read once. */
export function useConversations(options: ConversationsOptions & InBugle = {}): UseConversations {
  const messages = useMessages(options);
  const conversations = useMemo(() => new Conversations(messages, options), [messages]);
  const actions = useMemo(
    () => ({ loadMore: conversations.loadMore.bind(conversations), reload: conversations.reload.bind(conversations) }),
    [conversations],
  );
  return { ...useStarted(conversations), ...actions };
}

function useMessages({ bugle }: InBugle): DirectMessages {
  const above = useContext(BugleContext);
  const { messages } = bugle ?? above ?? {};
  if (!messages) throw new Error('no Bugle here: put a BugleProvider above, or pass the option bugle');
  return messages;
}

/** Starts a store while the component is mounted; its state. */
function useStarted<State extends object>(store: Conversation | Conversations): State {
  useEffect(() => {
    store.start();
    return () => store.stop();
  }, [store]);
  const { subscribe, state } = useMemo(
    () => ({ subscribe: store.subscribe.bind(store), state: () => store.state as unknown as State }),
    [store],
  );
  return useSyncExternalStore(subscribe, state, state);
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
