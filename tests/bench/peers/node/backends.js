import { timingSafeEqual } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

import { emit, Refusal, roomOf, userRoom } from './emits.js';

const PROTO = fileURLToPath(new URL('../../../../proto', import.meta.url));

/** Serves the calls of `proto/bugle/v1/notify.proto` that say something to devices; grpc-js refuses the others as unimplemented. */
export async function serveBackends(io, apiKey, host) {
  const definition = loadSync('bugle/v1/notify.proto', { includeDirs: [PROTO], keepCase: true, longs: Number, oneofs: true });
  const { Notify } = grpc.loadPackageDefinition(definition).bugle.v1;
  const isKnown = keyCheck(apiKey);
  const unary = (roomFor) => (call, callback) => answer(call, callback, isKnown, () => emit(io, roomFor(call.request), call.request));
  const server = new grpc.Server();
  server.addService(Notify.service, {
    EmitToUser: unary(({ user_id }) => userRoom(user_id)),
    EmitToRoom: unary(({ room }) => roomOf({ target: 'room', room })),
    Broadcast: unary(() => undefined),
    EmitStream: (call) => emitStream(io, call, isKnown),
  });
  const port = await promisify(server.bindAsync).call(server, `${host}:0`, grpc.ServerCredentials.createInsecure());
  return { server, port };
}

/** Whether a call has the API key. */
function keyCheck(apiKey) {
  const wanted = Buffer.from(`Bearer ${apiKey}`);
  return ({ metadata }) => {
    const given = Buffer.from(metadata.get('authorization')[0] ?? '');
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  };
}

const UNAUTHENTICATED = { code: grpc.status.UNAUTHENTICATED, details: 'No API key, or an unknown one' };

function answer(call, callback, isKnown, emitted) {
  if (!isKnown(call)) {
    callback(UNAUTHENTICATED);
    return;
  }
  try {
    callback(null, { receipt: emitted() });
  } catch (error) {
    callback(error instanceof Refusal ? { code: error.code, details: error.message } : error);
  }
}

function emitStream(io, call, isKnown) {
  if (!isKnown(call)) {
    call.emit('error', UNAUTHENTICATED);
    return;
  }
  call.on('data', ({ correlation_id, emit: asked }) => {
    const took = call.write({ correlation_id, result: resultOf(io, asked) });
    if (took) return;
    // A caller that reads no answers is not read either.
    call.pause();
    call.once('drain', () => call.resume());
  });
  call.on('end', () => call.end());
}

function resultOf(io, asked) {
  try {
    if (!asked) throw new Refusal('emit is missing');
    return { receipt: emit(io, roomOf(asked), asked) };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { error: { code: 'CODE_INVALID_ARGUMENT', message: error.message } };
  }
}
