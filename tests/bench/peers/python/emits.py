"""From an emit to its receipt."""

import json
import uuid

import socketio
from bugle.v1 import notify_pb2


class Refusal(Exception):
    """An emit that cannot be carried out."""


def user_room(user: str) -> str:
    return f"user:{named('user_id', user)}"


def shared_room(room: str) -> str | None:
    """None: everyone."""
    return None if room == "everyone" else named("room", room)


def room_of(emit: notify_pb2.Emit) -> str | None:
    match emit.WhichOneof("target"):
        case "user_id":
            return user_room(emit.user_id)
        case "room":
            return shared_room(emit.room)
        case "everyone":
            return None
        case _:
            raise Refusal("an emit without a target")


async def send(sio: socketio.AsyncServer, room: str | None, request) -> notify_pb2.Receipt:
    """Sends an event to a room, or to everyone, and tells what became of it."""
    event, payload = named("event", request.event), payload_of(request)
    # The library's own room of everyone is called None as well.
    matched = len(sio.manager.rooms.get("/", {}).get(room, ()))
    await sio.emit(event, payload, room=room)
    return notify_pb2.Receipt(message_id=str(uuid.uuid4()), matched=matched, enqueued=matched, nodes=1)


def payload_of(request) -> object:
    if request.HasField("options") and request.options.ByteSize() > 0:
        raise Refusal("options: this server has none")
    match request.WhichOneof("payload"):
        case "json":
            return parsed(request.json)
        case "binary":
            return request.binary
        case None:
            return ()
        case other:
            raise Refusal(f"payload: {other} is not for this server")


def parsed(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Refusal(f"json: {error}") from error
    # For the library None is no argument at all.
    return (None,) if value is None else value


def named(field: str, value: str) -> str:
    if not value:
        raise Refusal(f"{field} is missing")
    return value
