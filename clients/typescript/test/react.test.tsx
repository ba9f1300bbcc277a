// @vitest-environment happy-dom
import { act, cleanup, configure, render, renderHook, screen, waitFor } from '@testing-library/react';
import { StrictMode, useEffect, useState } from 'react';
import { renderToString } from 'react-dom/server';
import { afterEach, expect, test } from 'vitest';

import { type Bugle, useBugle, type UseBugleOptions } from '../src/react.js';
import { Arrivals } from './harness/deadline.js';
import { Network } from './harness/network.js';
import { Server } from './harness/server.js';

// A loaded machine takes longer than the default of 1 s.
configure({ asyncUtilTimeout: 10_000 });
afterEach(cleanup);

interface ShopEvents {
  'order:paid': { orderId: string };
}

function Orders({ on }: Pick<Bugle<ShopEvents>, 'on'>) {
  const [orders, setOrders] = useState<string[]>([]);
  useEffect(() => on('order:paid', ({ orderId }) => setOrders((before) => [...before, orderId])), [on]);
  return <p>Paid: {orders.join(' ')}</p>;
}

function Shop(options: UseBugleOptions) {
  const { isConnected, error, on } = useBugle<ShopEvents>(options);
  return (
    <>
      <p>{isConnected ? 'Connected' : 'Away'}</p>
      <p>{error?.code}</p>
      <Orders on={on} />
    </>
  );
}

const QUICK = { retryDelay: 20, retryDelayMax: 100 };

test('under StrictMode there is one connection, and each message is handled once', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  render(<Shop url={network.url} token={server.token('1')} socketOptions={{ transports: ['websocket'] }} />, { wrapper: StrictMode });
  await screen.findByText('Connected');
  const receipt = await server.backend.emit('1', 'order:paid', { orderId: 'o-1' });
  expect(receipt.matched).toBe(1);
  await server.backend.emit('1', 'order:paid', { orderId: 'o-2' });
  await screen.findByText('Paid: o-1 o-2');
  expect(network.passed).toBe(1);
});

test('the connection ends with the component', async () => {
  const server = await Server.start();
  const { unmount } = render(<Shop url={server.url} token={server.token('1')} />);
  await screen.findByText('Connected');
  unmount();
  await waitFor(async () => expect(await server.backend.connectionsOf('1')).toBe(0));
});

test('a handler ends with the component that added it, and the connection stays', async () => {
  const server = await Server.start();
  const heard = new Arrivals<unknown>('a message for the component');
  const kept = new Arrivals<unknown>('a message');
  const { result } = renderHook(() => useBugle({ url: server.url, token: server.token('1') }));
  const Listener = ({ on }: Pick<Bugle<ShopEvents>, 'on'>) => {
    useEffect(() => on('order:paid', heard.push), [on]);
    return null;
  };
  const { unmount } = render(<Listener on={result.current.on} />, { wrapper: StrictMode });
  result.current.on('order:paid', kept.push);
  await waitFor(() => expect(result.current.isConnected).toBe(true));
  await server.backend.emit('1', 'order:paid', { orderId: 'o-1' });
  await kept.next();
  expect(heard.drain()).toHaveLength(1);
  unmount();
  await server.backend.emit('1', 'order:paid', { orderId: 'o-2' });
  await kept.next();
  expect(heard.drain()).toEqual([]);
});

test('two components have two connections', async () => {
  const server = await Server.start();
  const options = { url: server.url, token: server.token('1') };
  render(<><Shop {...options} /><Shop {...options} /></>);
  await waitFor(() => expect(screen.getAllByText('Connected')).toHaveLength(2));
  expect(await server.backend.connectionsOf('1')).toBe(2);
});

test('a lost connection shows, with the reason, until it is back', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  // A cut in the middle of an upgrade would be noticed by the ping timeout only.
  render(<Shop url={network.url} token={server.token('1')} socketOptions={{ transports: ['websocket'] }} {...QUICK} />);
  await screen.findByText('Connected');
  await act(() => network.cut());
  await screen.findByText('Away');
  await screen.findByText('transport');
  await network.restore();
  await screen.findByText('Connected');
  expect(screen.queryByText('transport')).toBeNull();
});

test('without a token there is no connection, with one there is, and none after the logout', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const { rerender } = render(<Shop url={network.url} token={null} />, { wrapper: StrictMode });
  await screen.findByText('Away');
  expect(network.passed).toBe(0);
  rerender(<Shop url={network.url} token={server.token('1')} />);
  await screen.findByText('Connected');
  rerender(<Shop url={network.url} token={null} />);
  await screen.findByText('Away');
  await waitFor(async () => expect(await server.backend.connectionsOf('1')).toBe(0));
});

test('another token of the user is used on the same connection, one of another user on a new one', async () => {
  const server = await Server.start({ 'auth.expiring_notice': '1h' });
  const expiring = new Arrivals<{ expiresAt: string }>('a notice of expiry');
  const welcomes = new Arrivals<{ userId: string }>('a welcome');
  const { result, rerender } = renderHook((options: UseBugleOptions) => useBugle(options), {
    initialProps: { url: server.url, token: server.token('1') },
    wrapper: StrictMode,
  });
  result.current.on('bugle:token_expiring', expiring.push);
  result.current.on('connected', welcomes.push);
  expect(await welcomes.next()).toMatchObject({ userId: '1' });
  rerender({ url: server.url, token: server.token('1', 1_800) });
  await expiring.find(({ expiresAt }) => Date.parse(expiresAt) < Date.now() + 1_900_000);
  expect(welcomes.drain()).toEqual([]);
  rerender({ url: server.url, token: server.token('2') });
  expect(await welcomes.next()).toMatchObject({ userId: '2' });
  await waitFor(async () => expect(await server.backend.connectionsOf('1')).toBe(0));
});

test('the functions stay the same from render to render, and callbacks are those of the last one', async () => {
  const server = await Server.start();
  const old = new Arrivals<unknown>('a message');
  const messages = new Arrivals<unknown>('a message');
  const options = { url: server.url, token: server.token('1') };
  const { result, rerender } = renderHook((props: UseBugleOptions) => useBugle(props), {
    initialProps: { ...options, onMessage: old.push } as UseBugleOptions,
  });
  const { on, updateToken, send, forget } = result.current;
  await waitFor(() => expect(result.current.isConnected).toBe(true));
  old.drain();
  rerender({ ...options, onMessage: ({ payload }) => messages.push(payload) });
  expect(result.current).toMatchObject({ on, updateToken, send, forget });
  await server.backend.emit('1', 'note', 'new');
  expect(await messages.next()).toBe('new');
  expect(old.drain()).toEqual([]);
});

test('rendered on a server it connects to nothing', async () => {
  const server = await Server.start();
  const network = await Network.before(server.port);
  const html = renderToString(<Shop url={network.url} token={server.token('1')} />);
  expect(html).toContain('Away');
  expect(network.passed).toBe(0);
});
