// @vitest-environment happy-dom
import { expect, onTestFinished, test } from 'vitest';
import { createApp, defineComponent, effectScope, h, nextTick, ref } from 'vue';

import { useBugle, useConversation, type UseConversation, useConversations } from '../src/vue.js';
import { MemoryMessages, settled } from './harness/memory_messages.js';

/** Mounts a component with this setup; it is unmounted after the test at the latest. */
function mounted(setup: () => () => unknown): { root: HTMLElement; unmount: () => void } {
  const app = createApp(defineComponent(() => setup() as () => ReturnType<typeof h>));
  const root = document.createElement('div');
  app.mount(root);
  let isMounted = true;
  const unmount = () => {
    if (isMounted) app.unmount();
    isMounted = false;
  };
  onTestFinished(unmount);
  return { root, unmount };
}

function market() {
  const server = new MemoryMessages();
  server.send('seller', 'buyer', 'Two tickets');
  server.send('other', 'buyer', 'Hi');
  const device = server.device('buyer');
  return { server, device, bugle: { messages: device.direct } };
}

async function shown(): Promise<void> {
  await settled();
  await nextTick();
}

test('a list and a conversation follow what happens, and the user that a ref names', async () => {
  const { server, bugle } = market();
  const userId = ref('seller');
  let talk!: UseConversation;
  const { root } = mounted(() => {
    const { conversations, unreadCount } = useConversations({ bugle });
    talk = useConversation(userId, { bugle });
    const { messages, isTyping } = talk;
    return () =>
      h('p', [
        `${unreadCount.value} of ${conversations.value.map((one) => one.userId)}: `,
        messages.value.map(({ content, status, isRead }) => `${content} ${status}${isRead ? ' read' : ''}`).join(', '),
        isTyping.value ? ', typing' : '',
      ]);
  });
  await shown();
  expect(root.textContent).toBe('2 of other,seller: Two tickets sent');
  talk.send('Hello!');
  await nextTick();
  expect(root.textContent).toContain('Hello! sending');
  await shown();
  await talk.markRead();
  await shown();
  expect(root.textContent).toBe('1 of seller,other: Two tickets sent read, Hello! sent');
  server.tell('buyer', 'typing:start', { userId: 'seller' });
  await shown();
  expect(root.textContent).toContain('typing');
  userId.value = 'other';
  await shown();
  expect(root.textContent).toBe('1 of seller,other: Hi sent');
  talk.send('To the other one');
  await shown();
  expect(server.messages.at(-1)).toMatchObject({ receiverId: 'other' });
});

test('nothing is listened to any more after the unmount', async () => {
  const { server, device, bugle } = market();
  const { unmount } = mounted(() => {
    useConversation('seller', { bugle });
    useConversations({ bugle });
    return () => h('p');
  });
  await shown();
  const { length } = device.requests;
  unmount();
  server.send('seller', 'buyer', '2');
  device.disconnect();
  device.connect();
  await shown();
  expect(device.requests).toHaveLength(length);
});

test('outside of components they begin at once, and end with their scope', async () => {
  const { server, device, bugle } = market();
  const scope = effectScope();
  const { unreadCount } = scope.run(() => useConversations({ bugle }))!;
  await shown();
  expect(unreadCount.value).toBe(2);
  scope.stop();
  const { length } = device.requests;
  server.delete(server.messages[0]!.id);
  await shown();
  expect(device.requests).toHaveLength(length);
});

test('below a component with useBugle they find its client, and elsewhere say what to do', () => {
  let found: unknown;
  const Below = defineComponent(() => {
    found = useConversations();
    return () => h('p');
  });
  mounted(() => {
    useBugle({ url: 'http://127.0.0.1:9', token: ref(null) });
    return () => h(Below);
  });
  expect(found).toBeDefined();
  expect(() => effectScope().run(() => useConversations())).toThrow('call useBugle in a component above');
});
