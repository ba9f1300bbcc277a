// @vitest-environment happy-dom
import { expect, onTestFinished, test } from 'vitest';
import { createApp, defineComponent, effectScope, h, nextTick, ref, watch } from 'vue';

import { type Bugle, useBugle, type UseBugleOptions } from '../src/vue.js';
import { Arrivals } from './harness/deadline.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

interface ShopEvents {
  'order:paid': { orderId: string };
}

/** A component with the composable, mounted; it is unmounted after the test at the latest. */
function mounted(options: UseBugleOptions, setup: (bugle: Bugle<ShopEvents>) => void = () => {}) {
  const connected = new Arrivals<boolean>('a change of isConnected');
  let bugle!: Bugle<ShopEvents>;
  const app = createApp(
    defineComponent(() => {
      bugle = useBugle<ShopEvents>(options);
      watch(bugle.isConnected, connected.push, { flush: 'sync' });
      setup(bugle);
      return () => h('p', bugle.isConnected.value ? 'Connected' : 'Away');
    }),
  );
  const root = document.createElement('div');
  app.mount(root);
  let isMounted = true;
  const unmount = () => {
    if (isMounted) app.unmount();
    isMounted = false;
  };
  onTestFinished(unmount);
  return { bugle, connected, root, unmount };
}

test('shows whether it is connected, and hands messages to its handlers', async () => {
  const server = await Server.start();
  const paid = new Arrivals<string>('a paid order');
  const { connected, root } = mounted({ url: server.url, token: server.token('1') }, ({ on }) => {
    on('order:paid', ({ orderId }) => paid.push(orderId));
  });
  expect(root.textContent).toBe('Away');
  expect(await connected.next()).toBe(true);
  await nextTick();
  expect(root.textContent).toBe('Connected');
  await server.backend.emit('1', 'order:paid', { orderId: 'o-1' });
  expect(await paid.next()).toBe('o-1');
});

test('the connection ends with the component', async () => {
  const server = await Server.start();
  const { connected, unmount } = mounted({ url: server.url, token: server.token('1') });
  await connected.next();
  unmount();
  await expect.poll(() => server.backend.connectionsOf('1')).toBe(0);
});

test('a handler ends with the scope in which it was added, and by its clean-up', async () => {
  const server = await Server.start();
  const { bugle, connected } = mounted({ url: server.url, token: server.token('1') });
  await connected.next();
  const [inScope, cleanedUp, kept] = ['a scope', 'a clean-up', 'the end'].map((name) => new Arrivals<unknown>(name));
  const scope = effectScope();
  scope.run(() => bugle.on('order:paid', inScope!.push));
  bugle.on('order:paid', cleanedUp!.push)();
  bugle.on('order:paid', kept!.push);
  await server.backend.emit('1', 'order:paid', { orderId: 'o-1' });
  await kept!.next();
  expect(inScope!.drain()).toHaveLength(1);
  scope.stop();
  await server.backend.emit('1', 'order:paid', { orderId: 'o-2' });
  await kept!.next();
  expect(inScope!.drain()).toEqual([]);
  expect(cleanedUp!.drain()).toEqual([]);
});

test('a lost connection shows, with the reason, until it is back', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const { bugle, connected } = mounted({ url: network.url, token: server.token('1'), retryDelay: 20, retryDelayMax: 100 });
  expect(await connected.next()).toBe(true);
  await network.cut();
  expect(await connected.next()).toBe(false);
  expect(bugle.error.value?.code).toBe('transport');
  await network.restore();
  expect(await connected.next()).toBe(true);
  expect(bugle.error.value).toBeUndefined();
});

test('a ref to the token logs in, changes the user, and logs out', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const token = ref<string | null>(null);
  const welcomes = new Arrivals<string>('a welcome');
  const { connected } = mounted({ url: network.url, token }, ({ on }) => {
    on('connected', ({ userId }) => welcomes.push(userId));
  });
  await nextTick();
  expect(network.passed).toBe(0);
  token.value = server.token('1');
  expect(await welcomes.next()).toBe('1');
  token.value = server.token('2');
  expect(await welcomes.next()).toBe('2');
  await expect.poll(() => server.backend.connectionsOf('1')).toBe(0);
  connected.drain();
  token.value = null;
  expect(await connected.next()).toBe(false);
  await expect.poll(() => server.backend.connectionsOf('2')).toBe(0);
});
