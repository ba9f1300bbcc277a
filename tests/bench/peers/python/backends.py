"""Backends over gRPC: the calls of `proto/bugle/v1/notify.proto` that say something to devices. The base class refuses the others."""

import hmac
from collections.abc import AsyncIterator

import grpc
import socketio
from bugle.v1 import notify_pb2, notify_pb2_grpc

from emits import Refusal, room_of, send, shared_room, user_room


class Notify(notify_pb2_grpc.NotifyServicer):
    def __init__(self, sio: socketio.AsyncServer, api_key: str) -> None:
        self._sio = sio
        self._authorization = f"Bearer {api_key}".encode()

    async def EmitToUser(self, request, context) -> notify_pb2.EmitToUserResponse:
        receipt = await self._answer(context, request, lambda: user_room(request.user_id))
        return notify_pb2.EmitToUserResponse(receipt=receipt)

    async def EmitToRoom(self, request, context) -> notify_pb2.EmitToRoomResponse:
        receipt = await self._answer(context, request, lambda: shared_room(request.room))
        return notify_pb2.EmitToRoomResponse(receipt=receipt)

    async def Broadcast(self, request, context) -> notify_pb2.BroadcastResponse:
        receipt = await self._answer(context, request, lambda: None)
        return notify_pb2.BroadcastResponse(receipt=receipt)

    async def EmitStream(self, requests, context) -> AsyncIterator[notify_pb2.EmitStreamResponse]:
        await self._check(context)
        async for request in requests:
            result = await self._result(request.emit)
            yield notify_pb2.EmitStreamResponse(correlation_id=request.correlation_id, result=result)

    async def _check(self, context) -> None:
        given = dict(context.invocation_metadata()).get("authorization", "")
        if not hmac.compare_digest(given.encode(), self._authorization):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "No API key, or an unknown one")

    async def _answer(self, context, request, room_for) -> notify_pb2.Receipt:
        await self._check(context)
        try:
            return await send(self._sio, room_for(), request)
        except Refusal as refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refusal))

    async def _result(self, emit: notify_pb2.Emit) -> notify_pb2.EmitResult:
        try:
            return notify_pb2.EmitResult(receipt=await send(self._sio, room_of(emit), emit))
        except Refusal as refusal:
            error = notify_pb2.EmitError(code=notify_pb2.EmitError.CODE_INVALID_ARGUMENT, message=str(refusal))
            return notify_pb2.EmitResult(error=error)


async def serve_backends(sio: socketio.AsyncServer, api_key: str, host: str) -> tuple[grpc.aio.Server, int]:
    """The running server, and its port."""
    server = grpc.aio.server()
    notify_pb2_grpc.add_NotifyServicer_to_server(Notify(sio, api_key), server)
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    return server, port
