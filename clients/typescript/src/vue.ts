import { computed, type ComputedRef, getCurrentInstance, getCurrentScope, isRef, onMounted, onScopeDispose, type Ref, shallowRef, watch } from 'vue';

import { Client } from './client.js';
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
}

/**
 * Connects when the component is mounted (in an effect scope without a component: at once), and disconnects at the end of its scope. Each
 * call has a connection of its own: call it once, high in the tree, and `provide` the result to the components below.
 */
export function useBugle<Events extends object = AnyEvents>(options: UseBugleOptions): Bugle<Events> {
  const { token } = options;
  const client = new Client<Events>({ ...options, token: isRef(token) ? (token.value ?? '') : token });
  const state = shallowRef(client.state);
  client.subscribe((next) => (state.value = next));

  const open = () => {
    if (!isRef(token) || token.value) client.open();
  };
  if (getCurrentInstance()) onMounted(open);
  else open();
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
  };
}

function follow<Events extends object>(client: Client<Events>, token: string | null | undefined, onError: Options['onError']): void {
  if (!token) {
    client.close();
    return;
  }
  followToken(client, token).catch((error: BugleError) => reportTo(onError, error));
  client.open();
}
