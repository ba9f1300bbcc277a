// @vitest-environment happy-dom
import { act, cleanup, render, renderHook, screen } from '@testing-library/react';
import { StrictMode, useState } from 'react';
import { renderToString } from 'react-dom/server';
import { afterEach, expect, test } from 'vitest';

import { BugleError } from '../src/index.js';
import { BugleProvider, useConversation, useConversations } from '../src/react.js';
import { MemoryMessages, settled } from './harness/memory_messages.js';

afterEach(cleanup);

function Talk({ userId }: { userId: string }) {
  const { messages, isTyping, hasMore, send, markRead } = useConversation(userId);
  return (
    <>
      <ul>{messages.map(({ key, content, status, isRead }) => <li key={key}>{`${content} ${status}${isRead ? ' read' : ''}`}</li>)}</ul>
      <p>{isTyping ? 'typing' : 'silent'}{hasMore ? ' more' : ''}</p>
      <button onClick={() => send('Hello!')}>Send</button>
      <button onClick={() => void markRead()}>Read</button>
    </>
  );
}

function Inbox() {
  const { conversations, unreadCount } = useConversations();
  const [userId, setUserId] = useState('seller');
  return (
    <>
      <h1>{unreadCount} unread</h1>
      {conversations.map(({ userId, lastMessage }) => (
        <button key={userId} onClick={() => setUserId(userId)}>{`${userId}: ${lastMessage.content}`}</button>
      ))}
      <Talk userId={userId} />
    </>
  );
}

const entries = () => screen.queryAllByRole('listitem').map(({ textContent }) => textContent);
const press = (name: string | RegExp) => act(async () => screen.getByRole('button', { name }).click());

test('a list and a conversation below a provider, under StrictMode, follow what happens', async () => {
  const server = new MemoryMessages();
  server.send('seller', 'buyer', 'Two tickets');
  server.send('other', 'buyer', 'Hi');
  const device = server.device('buyer');
  const app = <BugleProvider value={{ messages: device.direct }}><Inbox /></BugleProvider>;
  const { unmount } = render(app, { wrapper: StrictMode });
  await act(settled);
  expect(entries()).toEqual(['Two tickets sent']);
  expect(screen.getByRole('heading').textContent).toBe('2 unread');

  await press('Read');
  expect(screen.getByRole('heading').textContent).toBe('1 unread');
  expect(entries()).toEqual(['Two tickets sent read']);

  device.refusals = [new BugleError('forbidden', 'you are blocked')];
  await press('Send');
  expect(entries()).toEqual(['Two tickets sent read', 'Hello! failed']);

  await act(async () => server.tell('buyer', 'typing:start', { userId: 'seller' }));
  screen.getByText('typing');
  await act(async () => void server.send('seller', 'buyer', 'Still there?'));
  screen.getByText('silent');
  expect(entries()).toEqual(['Two tickets sent read', 'Still there? sent', 'Hello! failed']);

  await press(/^other/);
  expect(entries()).toEqual(['Hi sent']);
  await press(/^seller/);
  await act(settled);
  expect(entries()).toEqual(['Two tickets sent read', 'Still there? sent', 'Hello! failed']);
  unmount();
});

test('the functions stay the same from render to render, and change with the user', async () => {
  const server = new MemoryMessages();
  const bugle = { messages: server.device('buyer').direct };
  const { result, rerender } = renderHook(({ userId }) => useConversation(userId, { bugle }), { initialProps: { userId: 'seller' } });
  await act(settled);
  const { send, retry, remove, typing, loadMore, markRead, reload } = result.current;
  rerender({ userId: 'seller' });
  expect(result.current).toMatchObject({ send, retry, remove, typing, loadMore, markRead, reload });
  rerender({ userId: 'other' });
  expect(result.current.send).not.toBe(send);
  await act(settled);
});

test('nothing is listened to any more after the unmount', async () => {
  const server = new MemoryMessages();
  const device = server.device('buyer');
  const bugle = { messages: device.direct };
  const { result, unmount } = renderHook(() => [useConversation('seller', { bugle }), useConversations({ bugle })] as const);
  await act(settled);
  const { length } = device.requests;
  unmount();
  server.send('seller', 'buyer', '1');
  device.disconnect();
  device.connect();
  await settled();
  expect(device.requests).toHaveLength(length);
  expect(result.current[0].messages).toEqual([]);
});

test('without a provider and without a client, the error says what to do', () => {
  expect(() => renderHook(() => useConversations())).toThrow('put a BugleProvider above');
});

test('rendered on a server, nothing is asked for', () => {
  const device = new MemoryMessages().device('buyer');
  const html = renderToString(<BugleProvider value={{ messages: device.direct }}><Inbox /></BugleProvider>);
  expect(html).toContain('silent');
  expect(device.requests).toEqual([]);
});
