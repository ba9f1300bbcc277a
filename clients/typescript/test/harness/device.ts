import { onTestFinished } from 'vitest';

import { type BugleError, type Client, connect, type ConnectionState, type Message, type Options } from '../../src/index.js';
import { Arrivals } from './deadline.js';

/** For a device that always has a connection, and notices when it is lost. */
export const WEBSOCKET = { transports: ['websocket'] };

/** A client, and what it has told its app. Closes with the test. */
export class Device {
  readonly messages = new Arrivals<Message>('a message');
  readonly states = new Arrivals<ConnectionState>('a state');
  readonly errors = new Arrivals<BugleError>('an error');
  readonly client: Client;

  /** Comes back quickly, and listens to everything but the welcome. */
  constructor(options: Options) {
    this.client = connect({
      retryDelay: 20,
      retryDelayMax: 100,
      onMessage: (message) => {
        if (message.event !== 'connected') this.messages.push(message);
      },
      onError: this.errors.push,
      ...options,
    });
    onTestFinished(() => this.client.close());
    this.client.subscribe(this.states.push);
  }

  static async connected(options: Options): Promise<Device> {
    const device = new Device(options);
    await device.connected();
    return device;
  }

  async connected(): Promise<void> {
    await this.states.find(({ isConnected }) => isConnected);
  }

  async disconnected(): Promise<ConnectionState> {
    return this.states.find(({ isConnected }) => !isConnected);
  }
}
