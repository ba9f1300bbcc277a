import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';

import { BUGLE, cleanEnvironment } from '../../clients/harness/binary.js';
import { Configuration } from '../../clients/harness/configuration.js';
import { Program } from '../../clients/harness/program.js';
import { Failure } from './failure.js';
import { PLAIN_PATH } from './kinds.js';
import { Nchan } from './nchan.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const node = (script) => () => peer(process.execPath, [here(script)], { NODE_ENV: 'production' });

/**
 * Nothing keeps a session alive between polls but the next poll, so heartbeats are as long as they can be: no session may end, and no ping
 * may wait in it, while memory is measured.
 */
const NO_HEARTBEATS = { 'socketio.ping_interval': '1h', 'socketio.ping_timeout': '1h' };

/** Who is compared: what each is called and how it is started. The order is the one in which they take their turns. */
export const CONTENDERS = {
  bugle: { title: 'Bugle', start: (keys) => bugle(keys) },
  'bugle-plain': { title: 'Bugle, plain WebSocket', start: () => bugle({ websocket: [{ path: PLAIN_PATH, events: ['*'] }] }) },
  'bugle-session': { title: 'Bugle, polling session', start: () => bugle(NO_HEARTBEATS) },
  'bugle-held': { title: 'Bugle, held poll', start: () => bugle() },
  node: { title: 'Node', start: node('node/server.js') },
  ws: { title: 'Node, ws alone', start: node('node/ws.js') },
  python: {
    title: 'Python',
    start: () => peer(here('python/.venv/bin/python'), [here('python/server.py')], { PYTHONPATH: here('python/.venv/stubs') }),
  },
  nchan: { title: 'nchan', start: nchan },
};

/** As much of a log as tells what went wrong. */
const LAST_LINES = 20;

/** A contender that runs. */
export class Contender {
  #program;
  #remove;
  // However this process ends, its contenders do not outlive it.
  #atExit = () => this.#program.kill();

  /** `keys`: of its configuration, beside what it must say. For Bugle alone. */
  static async start(name, keys) {
    const { title, start } = CONTENDERS[name];
    const contender = new Contender(title, await start(keys));
    try {
      await contender.#program.listening();
    } catch (error) {
      await contender.stop();
      throw new Failure(`${title} did not start: ${error.message}\n${contender.lastWords}`, { cause: error });
    }
    return contender;
  }

  constructor(title, { program, apiKey, secret, remove }) {
    this.title = title;
    this.apiKey = apiKey;
    this.secret = secret;
    this.#program = program;
    this.#remove = remove;
    process.once('exit', this.#atExit);
  }

  /** Where it is, as the load generator wants to know it. */
  get urls() {
    const { url, grpcAddress, adminUrl } = this.#program;
    return { devices: url, server: `http://${grpcAddress}`, admin: adminUrl };
  }

  /** The port for devices. */
  get port() {
    return Number(new URL(this.#program.url).port);
  }

  get pid() {
    return this.#program.pid;
  }

  get runs() {
    return this.#program.runs;
  }

  /** The end of its log. */
  get lastWords() {
    return this.#program.logged.trimEnd().split('\n').slice(-LAST_LINES).join('\n');
  }

  async stop() {
    process.off('exit', this.#atExit);
    await this.#program.kill();
    this.#remove();
  }
}

/** As it is shipped: with the defaults of a configuration that says what it must, and these keys. */
function bugle(keys) {
  const configuration = new Configuration(keys);
  const { apiKey, secret, path, directory } = configuration;
  const program = new Program(BUGLE, ['serve', '--config', path], { env: cleanEnvironment(), cwd: directory });
  return { program, apiKey, secret, remove: () => configuration.remove() };
}

function peer(command, args, environment) {
  const [apiKey, secret] = [0, 1].map(() => randomBytes(24).toString('hex'));
  const program = new Program(command, args, { env: { ...process.env, ...environment, API_KEY: apiKey, JWT_SECRET: secret } });
  return { program, apiKey, secret, remove: () => {} };
}

async function nchan() {
  const program = await Nchan.prepare();
  return { program, remove: () => program.remove() };
}
