"""hookspool: a source for our signatures, as its plugin page shows, and a destination for events.

`python -m benchmarks.apps.hookspool_source prepare` writes its configuration, as its generic
source's page does (an event is grouped by the object that it is about, here a payment). `handle`
serves the destination, a bare ASGI app that answers 204; `intake` is hookspool's once that listens.
"""

import base64
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from hookspool.__main__ import main as hookspool
from hookspool.plugin import Request, Secrets
from hookspool.plugin import verify as checks

from benchmarks.apps import asgi
from benchmarks.apps.common import PORT_VARIABLE, SIGNING_SECRET, directory
from benchmarks.apps.signature import HEADER

# The names that hookspool looks for in a source.
auth_headers = (HEADER,)
secrets = ("secret",)
span = "immediate"
sender_retries = True
action = "http:handler"

CONFIGURATION = """
[intake]
listen = "127.0.0.1:{port}"

[alerts]
dry = true

[sources.animica]
module = "{module}"
span = "immediate"
action = "http:handler"
secrets.secret = {{ file = "{secret}" }}

[destinations."http:handler"]
type = "http"
url = "http://127.0.0.1:{handler_port}/"
allow_insecure = true
secret = {{ file = "{destination_secret}" }}
"""
HANDLER_PORT = "handler-port"
# What it signs its own deliveries with has to be base64.
DESTINATION_SECRET = f"whsec_{base64.b64encode(SIGNING_SECRET.encode()).decode()}"


def verify(req: Request, found: Secrets) -> bool:
    """Tell whether the body was signed with the secret, now."""
    return bool(checks.timestamped(req.header(HEADER), found["secret"], req.body, now=req.now))


def key(payload: dict[str, Any], _: Request) -> str:
    """Return the payment, whose events are delivered in order and together."""
    return str(payload["data"]["id"])


def dedup_id(payload: dict[str, Any], _: Request) -> str:
    """Return what two deliveries of one event share."""
    return str(payload["id"])


async def handle(_: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
    """Take whatever comes."""
    await asgi.read(receive)
    await send(asgi.start(204))
    await send(asgi.END)


def _handler_port() -> int:
    return int((directory() / HANDLER_PORT).read_text())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _kept(name: str, secret: str) -> Path:
    path = directory() / name
    path.touch(mode=0o600)
    path.write_text(secret)
    return path


def _prepare() -> None:
    (directory() / HANDLER_PORT).write_text(str(_free_port()))
    configuration = CONFIGURATION.format(
        port=os.environ[PORT_VARIABLE],
        handler_port=_handler_port(),
        module="benchmarks.apps.hookspool_source",
        secret=_kept("secret", SIGNING_SECRET),
        destination_secret=_kept("destination-secret", DESTINATION_SECRET),
    )
    (directory() / "config.toml").write_text(configuration)


def _handle() -> None:
    uvicorn.run(handle, port=_handler_port(), lifespan="off", access_log=False, log_level="warning")


def _intake() -> None:
    # What it cannot deliver at once it would try again after 15 seconds.
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", _handler_port()), 1):
            break
        time.sleep(0.02)
    sys.exit(hookspool(["--home", str(directory()), "intake"]))


if __name__ == "__main__":
    {"prepare": _prepare, "handle": _handle, "intake": _intake}[sys.argv[1]]()
