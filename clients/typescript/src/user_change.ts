import type { Client } from './client.js';
import { BugleError } from './errors.js';

/** Uses another token, also one of another user: a connection belongs to one user, so there is a new one then. */
export async function followToken(client: Client<never>, token: string): Promise<void> {
  try {
    await client.updateToken(token);
  } catch (error) {
    if (!(error instanceof BugleError) || error.code !== 'wrong_user') throw error;
    client.close();
    client.forget();
    client.messages.reset();
    await client.updateToken(token);
    client.open();
  }
}
