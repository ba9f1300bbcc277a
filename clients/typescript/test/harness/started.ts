import { onTestFinished } from 'vitest';

import { Conversation, type ConversationOptions, Conversations, type ConversationsOptions } from '../../src/index.js';
import { type MemoryDevice, MemoryMessages, settled } from './memory_messages.js';

/** A started conversation with this user, which has loaded. */
export async function conversation(device: MemoryDevice, peer: string, options: ConversationOptions = {}): Promise<Conversation> {
  const made = new Conversation(device.direct, peer, options);
  made.start();
  onTestFinished(() => made.stop());
  await settled();
  return made;
}

/** A started list, which has loaded. */
export async function conversations(device: MemoryDevice, options: ConversationsOptions = {}): Promise<Conversations> {
  const made = new Conversations(device.direct, options);
  made.start();
  onTestFinished(() => made.stop());
  await settled();
  return made;
}

export function buyerAndSeller() {
  const server = new MemoryMessages();
  return { server, buyer: server.device('buyer'), seller: server.device('seller') };
}

export const contents = ({ state }: Conversation) => state.messages.map(({ content }) => content);
export const statuses = ({ state }: Conversation) => state.messages.map(({ status }) => status);
