import { randomUUID } from 'node:crypto';

import grpc from '@grpc/grpc-js';

/** An emit that cannot be carried out, with the gRPC status that says so. */
export class Refusal extends Error {
  code = grpc.status.INVALID_ARGUMENT;
}

/** The room of one emit of a stream; undefined: everyone. */
export function roomOf({ target, user_id, room }) {
  switch (target) {
    case 'user_id':
      return userRoom(user_id);
    case 'room':
      return room === 'everyone' ? undefined : named('room', room);
    case 'everyone':
      return undefined;
    default:
      throw new Refusal('an emit without a target');
  }
}

export function userRoom(user) {
  return `user:${named('user_id', user)}`;
}

/** Sends an event to a room, or to everyone, and tells what became of it. */
export function emit(io, room, request) {
  const event = named('event', request.event);
  const payload = payloadOf(request);
  const { adapter, sockets } = io.of('/');
  const matched = room === undefined ? sockets.size : (adapter.rooms.get(room)?.size ?? 0);
  const audience = room === undefined ? io : io.to(room);
  audience.emit(event, ...payload);
  // Socket.IO does not tell whether a connection could take an event: it takes all, and keeps what it can't send.
  return { message_id: randomUUID(), matched, enqueued: matched, nodes: 1 };
}

/** The event's arguments: one or none. */
function payloadOf({ payload, json, binary, options }) {
  if (options && Object.keys(options).length > 0) throw new Refusal('options: this server has none');
  switch (payload) {
    case 'json':
      return [parsed(json)];
    case 'binary':
      return [binary];
    case undefined:
      return [];
    default:
      throw new Refusal(`payload: ${payload} is not for this server`);
  }
}

function parsed(json) {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Refusal(`json: ${error.message}`, { cause: error });
  }
}

function named(field, value) {
  if (!value) throw new Refusal(`${field} is missing`);
  return value;
}
