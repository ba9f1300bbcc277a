// @vitest-environment happy-dom
import { act, cleanup, configure, render, screen, waitFor } from '@testing-library/react';
import { afterEach, expect, onTestFinished, test } from 'vitest';
import { createApp, defineComponent, h } from 'vue';

import * as inReact from '../src/react.js';
import * as inVue from '../src/vue.js';
import { Server } from './harness/server.js';

configure({ asyncUtilTimeout: 10_000 });
afterEach(cleanup);

function Talk() {
  const { messages, send } = inReact.useConversation('seller');
  const { unreadCount } = inReact.useConversations();
  return (
    <>
      <p>{unreadCount} unread: {messages.map(({ content, status }) => `${content} ${status}`).join(', ')}</p>
      <button onClick={() => send('From React')}>Send</button>
    </>
  );
}

function Market(options: inReact.UseBugleOptions) {
  return <inReact.BugleProvider value={inReact.useBugle(options)}><Talk /></inReact.BugleProvider>;
}

test('React and Vue write to each other; another user, with another token, sees nothing of it', async () => {
  const server = await Server.start({ 'messages.enabled': true, 'store.url': 'sqlite:messages.db', 'clients.cors_origins': [location.origin] });
  const { rerender } = render(<Market url={server.url} token={server.token('buyer')} />);
  let talk!: inVue.UseConversation;
  const Below = defineComponent(() => {
    talk = inVue.useConversation('buyer');
    return () => h('p', talk.messages.value.map(({ content }) => content).join(', '));
  });
  const app = createApp(defineComponent(() => {
    inVue.useBugle({ url: server.url, token: server.token('seller') });
    return () => h(Below);
  }));
  const root = document.createElement('div');
  app.mount(root);
  onTestFinished(() => app.unmount());

  await act(async () => screen.getByRole('button').click());
  await waitFor(() => expect(root.textContent).toBe('From React'));
  talk.send('From Vue');
  await screen.findByText('1 unread: From React sent, From Vue sent');
  rerender(<Market url={server.url} token={server.token('somebody else')} />);
  await screen.findByText('0 unread:');
});
