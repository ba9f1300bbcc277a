import { Backend } from './backend.js';
import { BUGLE, cleanEnvironment } from './binary.js';
import { Configuration } from './configuration.js';
import { Program } from './program.js';

/** `bugle serve`, run as a user runs it. */
export class Server extends Program {
  /** Starts a server with these configuration keys, and stops it after the file or test. */
  static async start(context, keys) {
    const configuration = new Configuration(keys);
    context.after(() => configuration.remove());
    const server = await Server.run(configuration);
    context.after(() => server.kill());
    return server;
  }

  /** Starts a server that whoever asks for it ends. */
  static async run(configuration) {
    const server = new Server(configuration);
    try {
      await server.listening();
    } catch (error) {
      await server.kill();
      throw new Error(`bugle did not start:\n${server.logged}`, { cause: error });
    }
    server.backend = new Backend(server.grpcAddress, configuration.apiKey);
    return server;
  }

  constructor(configuration) {
    const env = cleanEnvironment(configuration.environment);
    super(BUGLE, ['serve', '--config', configuration.path], { env, cwd: configuration.directory });
    this.configuration = configuration;
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  token(user, claims, expiresIn) {
    return this.configuration.token(user, claims, expiresIn);
  }

  async kill() {
    this.backend?.close();
    await super.kill();
  }
}
