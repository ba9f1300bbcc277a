"""A device in python-socketio: tells on standard output, a line of JSON each, what happens to it.

Arguments: the server's URL, the transports (separated by commas), the token, and if it resumes the positions that it has seen, as JSON.
SIGINT makes it disconnect and end.
"""

import asyncio
import base64
import contextlib
import json
import signal
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


class Seen:
    """The position of the last message of each room."""

    def __init__(self, text):
        self.positions = None if text is None else json.loads(text)

    def note(self, event, payload):
        if self.positions is None:
            return
        if event == "bugle:resumed":
            rooms = {name: room["position"] for name, room in payload[0]["rooms"].items()}
            self.positions.update({name: position for name, position in rooms.items() if position})
        elif len(payload) > 1 and isinstance(payload[1], dict) and "position" in payload[1]:
            self.positions[payload[1]["room"]] = payload[1]["position"]


async def main(url, transports, token, seen=None):
    seen = Seen(seen)

    def credentials():
        return {"token": token} if seen.positions is None else {"token": token, "resume": seen.positions}

    def heard(event, *payload):
        seen.note(event, payload)
        tell("event", event=event, payload=[shown(part) for part in payload])

    device = socketio.AsyncClient(reconnection_delay=0.2, reconnection_delay_max=1)
    device.on("connect", lambda: tell("connect", transport=device.transport()))
    device.on("connect_error", lambda error: tell("connect_error", error=error))
    device.on("disconnect", lambda reason: tell("disconnect", reason=reason))
    device.on("*", heard)
    device.on("question", reply)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: loop.create_task(device.disconnect()))
    try:
        await device.connect(url, transports=transports.split(","), auth=credentials, wait_timeout=30)
    except socketio.exceptions.ConnectionError:
        tell("ConnectionError")
        return
    with contextlib.suppress(asyncio.CancelledError):
        await device.wait()
    tell("end")


asyncio.run(main(*sys.argv[1:]))
