"""The ticket resale app's backend, as far as it talks to Bugle: each function is one RPC.

    backend.py emitListingUpdated listing-123 '{"status": "sold"}'

makes one call and prints its answer. Without arguments it reads calls from standard input, a list in JSON a line, and answers each
with a line.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import grpc

# Where gRPC finds the proto files: it reads them at start, and nothing is generated.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "proto"))
notify_pb2, notify_services = grpc.protos_and_services("bugle/v1/notify.proto")
presence_pb2, presence_services = grpc.protos_and_services("bugle/v1/presence.proto")
rooms_pb2, rooms_services = grpc.protos_and_services("bugle/v1/rooms.proto")

channel = grpc.insecure_channel(urlsplit(os.environ.get("BUGLE_SERVER", "http://127.0.0.1:50051")).netloc)
notify = notify_services.NotifyStub(channel)
presence = presence_services.PresenceStub(channel)
rooms = rooms_services.RoomsStub(channel)
WITH = {"metadata": [("authorization", f"Bearer {os.environ['BUGLE_API_KEY']}")], "timeout": 5}

# How long the buyer and the seller may follow their transaction.
TRANSACTION_LIFE = timedelta(days=30)


def emit_listing_updated(listing_id, update):
    """Tells a listing's subscribers of its status or quantity."""
    return emit_to_room(f"listing:{listing_id}", "listing:updated", update)


def emit_listing_price_changed(listing_id, change):
    """Tells a listing's subscribers of its price."""
    return emit_to_room(f"listing:{listing_id}", "listing:price_changed", change)


def emit_transaction_updated(transaction_id, update):
    """Tells those who subscribed to a transaction, its buyer and its seller, of its status."""
    return emit_to_room(f"transaction:{transaction_id}", "transaction:updated", update)


def emit_to_room(room, event, data):
    request = notify_pb2.EmitToRoomRequest(room=room, event=event, json=json.dumps(data))
    receipt = notify.EmitToRoom(request, **WITH).receipt
    return {"matched": receipt.matched, "enqueued": receipt.enqueued, "dropped": receipt.dropped}


def allow_transaction(user_id, transaction_id):
    """Lets a user subscribe to a transaction, as when it begins: the token was made before."""
    request = rooms_pb2.AllowRoomRequest(room=f"transaction:{transaction_id}", user_id=user_id)
    request.ttl.FromTimedelta(TRANSACTION_LIFE)
    rooms.AllowRoom(request, **WITH)


def forbid_transaction(user_id, transaction_id):
    """Takes that back, and the user's devices out of it."""
    request = rooms_pb2.ForbidRoomRequest(room=f"transaction:{transaction_id}", user_id=user_id)
    rooms.ForbidRoom(request, **WITH)


def get_online_users_count():
    """How many users have a device connected."""
    return presence.GetStats(presence_pb2.GetStatsRequest(), **WITH).users


def is_user_online(user_id):
    """Whether a user has a device connected."""
    return get_user(user_id).online


def get_user_sockets(user_id):
    """A user's devices that are connected, by the ids that they got in `connected`."""
    return [connection.id for connection in get_user(user_id).connections]


def get_user(user_id):
    return presence.GetUser(presence_pb2.GetUserRequest(user_id=user_id), **WITH)


CALLS = {
    "emitListingUpdated": emit_listing_updated,
    "emitListingPriceChanged": emit_listing_price_changed,
    "emitTransactionUpdated": emit_transaction_updated,
    "allowTransaction": allow_transaction,
    "forbidTransaction": forbid_transaction,
    "getOnlineUsersCount": get_online_users_count,
    "isUserOnline": is_user_online,
    "getUserSockets": get_user_sockets,
}


def answer(name, *arguments):
    try:
        return {"call": name, "answer": CALLS[name](*arguments)}
    except grpc.RpcError as refusal:
        return {"call": name, "refused": refusal.code().name, "message": refusal.details()}


def calls(arguments):
    if arguments:
        yield [json.loads(text) if text.startswith(("{", "[")) else text for text in arguments]
    else:
        yield from map(json.loads, sys.stdin)


for call in calls(sys.argv[1:]):
    outcome = answer(*call)
    print(json.dumps(outcome), flush=True)
    if sys.argv[1:] and "refused" in outcome:
        sys.exit(1)
