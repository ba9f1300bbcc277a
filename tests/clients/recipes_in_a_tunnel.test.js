import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { within } from './harness/deadline.js';
import { Nginx } from './harness/nginx.js';
import { Proxy } from './harness/proxy.js';
import { Recipe } from './harness/recipe.js';

const NGINX = fileURLToPath(new URL('./harness/nginx_plain.conf', import.meta.url));
/** Most recipes store nothing for devices that are away. An app that wants that sets `store.url`, and nothing else. */
const ENVIRONMENT = {
  BUGLE_STORE__URL: 'sqlite::memory:',
  BUGLE_SOCKETIO__PING_INTERVAL: '2s',
  BUGLE_SOCKETIO__PING_TIMEOUT: '2s',
};
const MESSAGES = ['in the tunnel', 'the fence'];

/** The apps: how each device is started at an address, the event that it is there for, and what it prints of one. */
const print = ({ event, payload }) => event && [event, payload?.[0]];
const APPS = {
  wallet: { open: (url, token) => [[url, token]], event: 'WALLET_UPDATE', print },
  earnings: { open: (url, token) => [[token], { env: { REACT_APP_API_URL: url } }], event: 'earnings:new', print },
  loans: { open: (url, token) => [[url, token]], event: 'loan:status', print },
  tickets: { open: (url, token) => [[url, token]], event: 'transaction:updated', print },
  balance: {
    open: (url, token) => [[url.replace(/^http/, 'ws'), token]],
    event: 'balance',
    print: ({ frame }) => frame && ['balance', JSON.parse(frame)],
  },
};

/** Waits until the user has so many connections. */
function connections(recipe, user, count) {
  const counted = async () => {
    while ((await recipe.server.backend.getUser({ user_id: user })).connections.length !== count);
  };
  return within(counted(), `${count} connections of ${user}`);
}

for (const [name, { open, event, print: printed }] of Object.entries(APPS)) {
  describe(`a phone with the ${name} app in a tunnel`, { concurrency: true }, async () => {
    const recipe = await Recipe.start({ after }, name, { scopes: 'emit', environment: ENVIRONMENT });
    const { port } = new URL(recipe.server.url);
    const nginx = await Nginx.before({ after }, NGINX, 8080, { 3000: port });
    const send = (user, text, options) => recipe.server.backend.emit(user, event, { json: JSON.stringify({ text }) }, options);

    /** The texts of what the app prints up to this one. */
    const hears = async (device, last) => {
      const texts = [];
      while (texts.at(-1) !== last) {
        const [heardEvent, payload] = printed(await device.lines.next()) ?? [];
        if (heardEvent === event) texts.push(payload.text ?? payload.data?.text);
      }
      return texts;
    };

    for (const [behind, target] of [['Bugle', port], ['nginx', new URL(nginx.url).port]]) {
      test(`gets what was stored meanwhile once, with ${behind} behind the tunnel`, async (t) => {
        const user = `behind ${behind}`;
        const proxy = await Proxy.before(t, Number(target));
        const [args, options] = open(proxy.url, recipe.token(user));
        const device = recipe.device(t, args, options);
        await connections(recipe, user, 1);

        proxy.enterTunnel();
        const receipt = await send(user, MESSAGES[0], { store: true });
        assert.deepEqual([receipt.matched, receipt.stored], [1, true]);
        proxy.leaveTunnel();

        const heard = await hears(device, MESSAGES[0]);
        await send(user, MESSAGES[1]);
        assert.deepEqual([...heard, ...(await hears(device, MESSAGES[1]))], MESSAGES);
      });
    }
  });
}
