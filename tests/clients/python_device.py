"""A device in python-socketio: tells on standard output, a line of JSON each, what happens to it.

Arguments: the server's URL, the transport, the token.
"""

import asyncio
import base64
import json
import sys

import socketio


def tell(what, **details):
    print(json.dumps({"what": what, **details}), flush=True)


def shown(payload):
    if isinstance(payload, bytes):
        return {"base64": base64.b64encode(payload).decode()}
    return payload


REPLIES = {"one": {"seen": True}, "several": ("yes", 1, None), "binary": b"bytes"}


def reply(question):
    tell("question", question=question)
    return REPLIES.get(question)


async def main(url, transport, token):
    device = socketio.AsyncClient(reconnection_delay=0.2, reconnection_delay_max=1)
    device.on("connect", lambda: tell("connect", transport=device.transport()))
    device.on("connect_error", lambda error: tell("connect_error", error=error))
    device.on("disconnect", lambda reason: tell("disconnect", reason=reason))
    device.on("*", lambda event, *payload: tell("event", event=event, payload=[shown(part) for part in payload]))
    device.on("question", reply)
    try:
        await device.connect(url, transports=[transport], auth={"token": token})
    except socketio.exceptions.ConnectionError:
        tell("ConnectionError")
        return
    await device.wait()
    tell("end")


asyncio.run(main(*sys.argv[1:]))
