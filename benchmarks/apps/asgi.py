"""The little of ASGI that an app without a framework needs: read, verify, answer."""

import hmac
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from benchmarks.apps.common import SIGNING_SECRET

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TOLERANCE_SECONDS = 300
SECRET = SIGNING_SECRET.encode()
SIGNATURE = re.compile(rb"t=([0-9]{1,10}),v1=([0-9a-f]{64})")
END: Message = {"type": "http.response.body", "body": b""}


async def read(receive: Receive) -> bytes:
    """Return the whole body; one message is the usual case and is not copied."""
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body


def is_authentic(scope: Scope, body: bytes) -> bool:
    """Tell whether the body was signed with the secret, now: both sides of the clock count."""
    for name, value in scope["headers"]:
        if name == b"x-animica-signature":
            return _is_signature(value, body)
    return False


def _is_signature(header: bytes, body: bytes) -> bool:
    match = SIGNATURE.fullmatch(header)
    if match is None:
        return False
    timestamp, signature = match.groups()
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    expected = hmac.digest(SECRET, timestamp + b"." + body, "sha256").hex().encode()
    return hmac.compare_digest(expected, signature)


def start(status: int) -> Message:
    """Return the head of an answer without a body."""
    headers = [] if status == 204 else [(b"content-length", b"0")]
    return {"type": "http.response.start", "status": status, "headers": headers}
