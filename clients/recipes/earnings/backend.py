"""The earnings tracker's backend, as far as it talks to Bugle: the functions of its document, each one RPC.

    backend.py sendSuccessNotification alice 'Earning Created' 'New earning of $100 added to Upwork'

makes one call and prints its answer. Without arguments it reads calls from standard input, a list in JSON a line, and answers each
with a line.
"""

import json
import math
import os
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

import grpc

# Where gRPC finds the proto files: it reads them at start, and nothing is generated.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "proto"))
notify_pb2, notify_services = grpc.protos_and_services("bugle/v1/notify.proto")
presence_pb2, presence_services = grpc.protos_and_services("bugle/v1/presence.proto")

channel = grpc.insecure_channel(urlsplit(os.environ.get("BUGLE_SERVER", "http://127.0.0.1:50051")).netloc)
notify = notify_services.NotifyStub(channel)
presence = presence_services.PresenceStub(channel)
WITH = {"metadata": [("authorization", f"Bearer {os.environ['BUGLE_API_KEY']}")], "timeout": 5}


# utils/websocket.util


def emit_to_user(user_id, event, data):
    request = notify_pb2.EmitToUserRequest(user_id=user_id, event=event, json=json.dumps(data))
    return shown(notify.EmitToUser(request, **WITH).receipt)


def emit_to_room(room, event, data):
    request = notify_pb2.EmitToRoomRequest(room=room, event=event, json=json.dumps(data))
    return shown(notify.EmitToRoom(request, **WITH).receipt)


def broadcast_event(event, data):
    request = notify_pb2.BroadcastRequest(event=event, json=json.dumps(data))
    return shown(notify.Broadcast(request, **WITH).receipt)


def get_connected_users():
    """Up to 1,000: with more, ask for the next page with the answer's next_page_token."""
    answer = presence.ListUsers(presence_pb2.ListUsersRequest(page_size=1000), **WITH)
    return [user.user_id for user in answer.users]


def get_user_socket_count(user_id):
    answer = presence.GetUsers(presence_pb2.GetUsersRequest(user_ids=[user_id]), **WITH)
    return answer.users[0].connection_count


def disconnect_user(user_id):
    request = notify_pb2.DisconnectUserRequest(user_id=user_id, reason="logged out")
    return notify.DisconnectUser(request, **WITH).disconnected


def shown(receipt):
    counts = {"matched": receipt.matched, "enqueued": receipt.enqueued, "dropped": receipt.dropped}
    return {**counts, "deferred": True} if receipt.deferred else counts


# websocket/events/earnings.events. bugle.toml has them enveloped.


def emit_earning_created(user_id, earning):
    return emit_to_room(f"earnings:{user_id}", "earnings:new", earning)


def emit_earning_updated(user_id, update):
    """`update`: {id, userId, changes, updatedAt}."""
    return emit_to_room(f"earnings:{user_id}", "earnings:updated", update)


def emit_earning_deleted(user_id, earning_id):
    return emit_to_room(f"earnings:{user_id}", "earnings:deleted", {"id": earning_id})


def emit_earnings_created(user_id, earnings):
    """Many at once, as from an import. None may be lost: one EmitBatch, whose emits all arrive, in order."""
    event = {"room": f"earnings:{user_id}", "event": "earnings:new"}
    emits = [notify_pb2.Emit(**event, json=json.dumps(earning)) for earning in earnings]
    results = notify.EmitBatch(notify_pb2.EmitBatchRequest(emits=emits), **WITH).results
    return [shown_result(result) for result in results]


def shown_result(result):
    if result.HasField("receipt"):
        return shown(result.receipt)
    retry_after_ms = math.ceil(result.error.retry_after.ToNanoseconds() / 1_000_000)
    return {"refused": result.error.message, "retryAfterMs": retry_after_ms}


def emit_dashboard_totals(user_id, totals):
    """For totals that change often: of those that follow each other quickly the latest wins."""
    options = notify_pb2.EmitOptions(collapse_key="totals")
    event = {"user_id": user_id, "event": "dashboard:totals", "json": json.dumps(totals)}
    return shown(notify.EmitToUser(notify_pb2.EmitToUserRequest(**event, options=options), **WITH).receipt)


# websocket/events/notifications.events. bugle.toml has them enveloped.


def notification_of(kind, title, message):
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "id": f"notif_{uuid.uuid4()}",
        "title": title,
        "message": message,
        "type": kind,
        "timestamp": now,
        "dismissible": True,
        "duration": 5000,
    }


def sends_notification(kind):
    def send(user_id, title, message):
        return emit_to_room(f"notifications:{user_id}", "notification", notification_of(kind, title, message))

    return send


def broadcast_notification(notification):
    return broadcast_event("notification:broadcast", notification)


CALLS = {
    "emitToUser": emit_to_user,
    "emitToRoom": emit_to_room,
    "broadcastEvent": broadcast_event,
    "getConnectedUsers": get_connected_users,
    "getUserSocketCount": get_user_socket_count,
    "disconnectUser": disconnect_user,
    "emitEarningCreated": emit_earning_created,
    "emitEarningUpdated": emit_earning_updated,
    "emitEarningDeleted": emit_earning_deleted,
    "emitEarningsCreated": emit_earnings_created,
    "emitDashboardTotals": emit_dashboard_totals,
    "sendInfoNotification": sends_notification("info"),
    "sendSuccessNotification": sends_notification("success"),
    "sendWarningNotification": sends_notification("warning"),
    "sendErrorNotification": sends_notification("error"),
    "broadcastNotification": broadcast_notification,
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
