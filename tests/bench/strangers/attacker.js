import { setPriority } from 'node:os';

import { attackOf } from './attacks/index.js';
import { alive } from './raw.js';

// Attackers have machines of their own: theirs is not the processor that the server needs.
setPriority(19);
// Sockets fail as the server ends them, whoever waits for them at that time.
process.on('unhandledRejection', () => {});
process.on('uncaughtException', (error) => {
  if (!error.code) process.send({ failed: error.stack });
});

process.on('message', async ({ start, target }) => {
  if (!start) {
    process.send({ alive: alive() });
    return;
  }
  try {
    process.send({ done: (await attackOf(start).run(target)) ?? '' });
  } catch (error) {
    process.send({ failed: error.stack });
  }
});
