"""What a team writes if there is no Bugle: python-socketio on uvicorn, gRPC and metrics for its operators, in one process and one loop."""

import asyncio
import json
import os
import socket
import sys

import prometheus_client
import socketio
import uvicorn
import uvloop

from backends import serve_backends
from devices import serve_devices

HOST = "127.0.0.1"
BACKLOG = 2048


def listening() -> socket.socket:
    """A socket that is open for devices before uvicorn takes it over."""
    listener = socket.create_server((HOST, 0), backlog=BACKLOG)
    listener.setblocking(False)
    return listener


def settings(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        # As in Node's server: compressing costs memory and time for each connection.
        ws_per_message_deflate=False,
        # Socket.IO has a ping of its own.
        ws_ping_interval=None,
    )


async def main() -> None:
    api_key, secret = os.environ["API_KEY"], os.environ["JWT_SECRET"]
    sio = serve_devices(secret)
    backends, grpc_port = await serve_backends(sio, api_key, HOST)
    admin, _ = prometheus_client.start_http_server(0, addr=HOST)
    clients = listening()
    addresses = {
        "clients.listen": f"{HOST}:{clients.getsockname()[1]}",
        "grpc.listen": f"{HOST}:{grpc_port}",
        "admin.listen": f"{HOST}:{admin.server_port}",
    }
    print(json.dumps({"message": "listening", **addresses}), file=sys.stderr, flush=True)

    async def stop() -> None:
        await backends.stop(grace=5)
        admin.shutdown()

    # When SIGTERM or SIGINT has ended the serving, uvicorn raises it again: nothing comes after this.
    await uvicorn.Server(settings(socketio.ASGIApp(sio, on_shutdown=stop))).serve(sockets=[clients])


uvloop.run(main())
