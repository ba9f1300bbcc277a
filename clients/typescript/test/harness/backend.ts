import { join } from 'node:path';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = join(import.meta.dirname, '../../../../proto');
const FILES = ['notify', 'presence', 'rooms'].map((name) => `bugle/v1/${name}.proto`);
const definition = loadSync(FILES, {
  includeDirs: [PROTO],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});

export interface Ack {
  outcome: string;
  json: string;
}

export interface Receipt {
  message_id: string;
  matched: number;
  enqueued: number;
  stored: boolean;
  position: string;
  acks: Ack[];
}

type Method = (
  request: object,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  done: (error: Error | null, answer: unknown) => void,
) => void;
type Service = 'Notify' | 'Presence' | 'Rooms';

/** A backend that calls Bugle with the official gRPC library. */
export class Backend {
  readonly #clients = new Map<Service, grpc.Client>();
  readonly #metadata = new grpc.Metadata();

  constructor(address: string, apiKey: string) {
    this.#metadata.set('authorization', `Bearer ${apiKey}`);
    const services = (grpc.loadPackageDefinition(definition) as unknown as {
      bugle: { v1: Record<Service, new (...args: unknown[]) => grpc.Client> };
    }).bugle.v1;
    // Else a backend of a server that came back would share the failed connection of the one before.
    const options = { 'grpc.use_local_subchannel_pool': 1 };
    for (const name of ['Notify', 'Presence', 'Rooms'] as const) {
      this.#clients.set(name, new services[name](address, grpc.credentials.createInsecure(), options));
    }
  }

  /** Sends an event to a user; the receipt. */
  emit(user: string, event: string, payload: unknown, options: object = {}): Promise<Receipt> {
    return this.#emit('EmitToUser', { user_id: user, event, json: JSON.stringify(payload), options });
  }

  /** Sends an event to a room; the receipt. */
  emitToRoom(room: string, event: string, payload: unknown, options: object = {}): Promise<Receipt> {
    return this.#emit('EmitToRoom', { room, event, json: JSON.stringify(payload), options });
  }

  async disconnectUser(user: string, reason: string): Promise<number> {
    const answer = await this.#call<{ disconnected: number }>('Notify', 'DisconnectUser', { user_id: user, reason });
    return answer.disconnected;
  }

  /** How many connections a user has. */
  async connectionsOf(user: string): Promise<number> {
    const answer = await this.#call<{ connections: unknown[] }>('Presence', 'GetUser', { user_id: user });
    return answer.connections.length;
  }

  async joinRoom(user: string, room: string): Promise<void> {
    await this.#call('Rooms', 'JoinRoom', { user_id: user, room });
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
  }

  async #emit(method: string, request: object): Promise<Receipt> {
    return (await this.#call<{ receipt: Receipt }>('Notify', method, request)).receipt;
  }

  #call<Answer>(service: Service, method: string, request: object): Promise<Answer> {
    const client = this.#clients.get(service)! as unknown as Record<string, Method>;
    return new Promise((resolve, reject) => {
      client[method]!(request, this.#metadata, { deadline: Date.now() + 10_000 }, (error, answer) => {
        if (error) reject(error);
        else resolve(answer as Answer);
      });
    });
  }
}
