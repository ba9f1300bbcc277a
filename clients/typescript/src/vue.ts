import {
  computed,
  type ComputedRef,
  getCurrentInstance,
  getCurrentScope,
  inject,
  type InjectionKey,
  isRef,
  type MaybeRefOrGetter,
  onMounted,
  onScopeDispose,
  provide,
  type Ref,
  type ShallowRef,
  shallowRef,
  toValue,
  watch,
} from 'vue';

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
   * As in `connect`, or a ref to the token; `null` or `undefined` in it while nobody is logged in: then there is no connection. Another
   * text in it replaces the token of the live connection; if it is another user's, there is a new connection.
   */
  token: Token | Readonly<Ref<string | null | undefined>>;
}

export interface Bugle<Events extends object> {
  isConnected: ComputedRef<boolean>;
  /** Why there is no connection; `undefined` while there is one. */
  error: ComputedRef<BugleError | undefined>;
  /** Adds a handler, and returns what takes it out again. Within a component's setup that happens by itself when it is unmounted. */
  on: Client<Events>['on'];
  updateToken: Client<Events>['updateToken'];
  send: Client<Events>['send'];
  forget: Client<Events>['forget'];
  /** The user's direct messages: for the other composables. */
  messages: DirectMessages;
}

/** Under which `useBugle` provides the client to the components below. */
const CLIENT: InjectionKey<{ readonly messages: DirectMessages }> = Symbol('client');

/**
 * Connects when the component is mounted (in an effect scope without a component: at once), and disconnects at the end of its scope. Each
 * call has a connection of its own: call it once, high in the tree, and `provide` the result to the components below. `useConversation` and
 * `useConversations` find it there by themselves.
 */
export function useBugle<Events extends object = AnyEvents>(options: UseBugleOptions): Bugle<Events> {
  const { token } = options;
  const client = new Client<Events>({ ...options, token: isRef(token) ? (token.value ?? '') : token });
  const state = shallowRef(client.state);
  client.subscribe((next) => (state.value = next));

  const open = () => {
    if (!isRef(token) || token.value) client.open();
  };
  if (getCurrentInstance()) {
    onMounted(open);
    provide(CLIENT, client);
  } else {
    open();
  }
  if (isRef(token)) watch(token, (next) => follow(client, next, options.onError));
  onScopeDispose(() => client.close());

  return {
    isConnected: computed(() => state.value.isConnected),
    error: computed(() => state.value.error),
    on: (event, handler) => {
      const off = client.on(event, handler);
      if (getCurrentScope()) onScopeDispose(off);
      return off;
    },
    updateToken: client.updateToken.bind(client),
    send: client.send.bind(client),
    forget: client.forget.bind(client),
    get messages() {
      return client.messages;
    },
  };
}

export interface InBugle {
  /** What `useBugle` has returned, where it was called by no component above. */
  bugle?: Pick<Bugle<never>, 'messages'>;
}

/** A state as refs, one for each of its fields. */
export type Refs<State> = { readonly [Field in keyof State]: ComputedRef<State[Field]> };

export type UseConversation = Refs<ConversationState> &
  Pick<Conversation, 'send' | 'retry' | 'remove' | 'typing' | 'loadMore' | 'markRead' | 'reload'>;

/**
 * The conversation with a user, or with the one that a ref or getter names, until the end of the scope. Nothing is loaded before the
 * component is mounted. Options other than `bugle` are read once for each conversation.
 */
export function useConversation(userId: MaybeRefOrGetter<string>, options: ConversationOptions & InBugle = {}): UseConversation {
  const messages = messagesOf(options);
  const { store, refs } = useStarted<ConversationState, Conversation>(
    () => toValue(userId),
    (peer) => new Conversation(messages, peer, options),
  );
  return {
    ...refs,
    send: (text, topic) => store().send(text, topic),
    retry: (key) => store().retry(key),
    remove: (key) => store().remove(key),
    typing: () => store().typing(),
    loadMore: () => store().loadMore(),
    markRead: () => store().markRead(),
    reload: () => store().reload(),
  };
}

export type UseConversations = Refs<ConversationsState> & Pick<Conversations, 'loadMore' | 'reload'>;

/** The user's conversations, until the end of the scope. Nothing is loaded before the component is mounted. */
export function useConversations(options: ConversationsOptions & InBugle = {}): UseConversations {
  const messages = messagesOf(options);
  const { store, refs } = useStarted<ConversationsState, Conversations>(
    () => '',
    () => new Conversations(messages, options),
  );
  return { ...refs, loadMore: () => store().loadMore(), reload: () => store().reload() };
}

function messagesOf({ bugle }: InBugle): DirectMessages {
  const { messages } = bugle ?? (getCurrentInstance() ? inject(CLIENT, undefined) : undefined) ?? {};
  if (!messages) throw new Error('no Bugle here: call useBugle in a component above, or pass the option bugle');
  return messages;
}

/** A store for what the source names, started until that changes or the scope ends, and its state. */
function useStarted<State extends object, Store extends Conversation | Conversations>(source: () => string, make: (name: string) => Store) {
  const store = shallowRef(make(source())) as ShallowRef<Store>;
  const state = shallowRef(store.value.state as State) as ShallowRef<State>;
  let end: (() => void) | undefined;
  const begin = () => {
    const { value } = store;
    const unsubscribe = value.subscribe(() => (state.value = value.state as State));
    value.start();
    state.value = value.state as State;
    end = () => {
      unsubscribe();
      value.stop();
    };
  };
  if (getCurrentInstance()) onMounted(begin);
  else begin();
  watch(source, (name) => {
    const isBegun = end !== undefined;
    end?.();
    store.value = make(name);
    state.value = store.value.state as State;
    if (isBegun) begin();
  });
  onScopeDispose(() => end?.());
  return { store: () => store.value, refs: refsOf<State>(state) };
}

function refsOf<State extends object>(state: ShallowRef<State>): Refs<State> {
  const fields = Object.keys(state.value) as (keyof State)[];
  return Object.fromEntries(fields.map((field) => [field, computed(() => state.value[field])])) as Refs<State>;
}

function follow<Events extends object>(client: Client<Events>, token: string | null | undefined, onError: Options['onError']): void {
  if (!token) {
    client.close();
    client.messages.reset();
    return;
  }
  followToken(client, token).catch((error: BugleError) => reportTo(onError, error));
  client.open();
}
