import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('../../../proto', import.meta.url));
const FILES = ['notify', 'presence', 'rooms'].map((name) => `bugle/v1/${name}.proto`);
const definition = loadSync(FILES, {
  includeDirs: [PROTO],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { bugle } = grpc.loadPackageDefinition(definition);

/** A backend that calls Bugle with the official gRPC library. */
export class Backend {
  #clients;
  #metadata = new grpc.Metadata();

  constructor(address, apiKey) {
    this.#metadata.set('authorization', `Bearer ${apiKey}`);
    const { Notify, Presence, Rooms } = bugle.v1;
    // Else a backend of a server that came back would share the failed connection of the one before.
    const options = { 'grpc.use_local_subchannel_pool': 1 };
    const credentials = grpc.credentials.createInsecure();
    this.#clients = [Notify, Presence, Rooms].map((Service) => new Service(address, credentials, options));
    const [notify, presence, rooms] = this.#clients;
    this.emitToUser = this.#call(notify, 'EmitToUser');
    this.emitToUsers = this.#call(notify, 'EmitToUsers');
    this.emitToRoom = this.#call(notify, 'EmitToRoom');
    this.broadcast = this.#call(notify, 'Broadcast');
    this.emitBatch = this.#call(notify, 'EmitBatch');
    this.disconnectUser = this.#call(notify, 'DisconnectUser');
    this.getUser = this.#call(presence, 'GetUser');
    this.getStats = this.#call(presence, 'GetStats');
    this.joinRoom = this.#call(rooms, 'JoinRoom');
    this.emitStream = () => notify.EmitStream(this.#metadata);
  }

  #call(client, method) {
    const call = promisify(client[method]).bind(client);
    return (request) => call(request, this.#metadata, { deadline: Date.now() + 10_000 });
  }

  /** Sends one event to a user; the receipt. */
  async emit(user, event, payload = {}, options = {}) {
    const answer = await this.emitToUser({ user_id: user, event, ...payload, options });
    return answer.receipt;
  }

  close() {
    for (const client of this.#clients) client.close();
  }
}

/** The part of a receipt that tests state. */
export function counts({ matched, enqueued, dropped }) {
  return { matched, enqueued, dropped };
}
