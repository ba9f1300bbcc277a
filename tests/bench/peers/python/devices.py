"""Devices over Socket.IO."""

import jwt
import socketio


def serve_devices(secret: str) -> socketio.AsyncServer:
    """WebSocket and polling: who has a token is in `user:{sub}` and `role:{role}`."""
    sio = socketio.AsyncServer(async_mode="asgi")

    @sio.event
    async def connect(sid: str, _environ: dict, auth: dict | None) -> None:
        try:
            claims = jwt.decode((auth or {}).get("token"), secret, algorithms=["HS256"], options={"require": ["sub"]})
        except jwt.PyJWTError as error:
            raise socketio.exceptions.ConnectionRefusedError("Invalid or expired token") from error
        user, role = claims["sub"], claims.get("role")
        rooms = [f"user:{user}", f"role:{role}"] if role else [f"user:{user}"]
        for room in rooms:
            await sio.enter_room(sid, room)
        await sio.emit("connected", {"userId": user, "connectionId": sid, "rooms": rooms}, to=sid)

    return sio
