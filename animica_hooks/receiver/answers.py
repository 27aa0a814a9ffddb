"""Every answer the receiver gives. Bodies are made once; a stranger learns nothing from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.types import Send

RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """An HTTP answer.

    Attributes:
        code: the ``code`` of an error's body; empty for the others.
    """

    status: int
    code: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    async def send(self, send: Send) -> None:
        # New containers for each: middlewares add their headers to them.
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": list(self.headers),
            }
        )
        await send({"type": "http.response.body", "body": self.body})


def _error(
    status: int, code: str, message: str, *headers: tuple[bytes, bytes], close: bool = False
) -> Answer:
    kind = "invalid_request_error" if status < 500 else "api_error"
    body = {"error": {"message": message, "type": kind, "code": code}}
    # What is left of a body that was not read would be taken for the next request.
    closing = ((b"connection", b"close"),) if close else ()
    return _json(status, body, code, *headers, *closing)


def _json(status: int, body: Any, code: str, *headers: tuple[bytes, bytes]) -> Answer:
    encoded = json.dumps(body).encode()
    always = (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(encoded)).encode()),
    )
    return Answer(status, code, (*always, *headers), encoded)


ACCEPTED = Answer(204, "", (), b"")
METHOD_NOT_ALLOWED = _error(
    405, "method_not_allowed", "Deliver webhooks with POST.", (b"allow", b"POST")
)
READ_ONLY = _error(405, "method_not_allowed", "Read the health with GET.", (b"allow", b"GET, HEAD"))
UNSUPPORTED_ENCODING = _error(
    415, "unsupported_encoding", "Send the body as it was signed, without Content-Encoding.",
    close=True,
)  # fmt: skip
INVALID_SIGNATURE = _error(400, "invalid_signature", "The signature could not be verified.")
INVALID_SIGNATURE_UNREAD = _error(
    400, "invalid_signature", "The signature could not be verified.", close=True
)
PAYLOAD_TOO_LARGE = _error(
    413, "payload_too_large", "The body is larger than this endpoint takes.", close=True
)
BODY_TIMEOUT = _error(408, "body_timeout", "The body did not arrive in time.", close=True)
BODY_CONSUMED = _error(
    500,
    "body_consumed",
    "The body did not reach the webhook receiver as it was sent: a middleware in front of it has "
    "read or changed it. Mount the receiver outside that middleware.",
    close=True,
)
UNAVAILABLE = _error(
    503,
    "unavailable",
    "The delivery was not stored. Send it again later.",
    (b"retry-after", str(RETRY_AFTER_S).encode()),
)
LIVE = _json(200, {"status": "ok", "reasons": []}, "")


def ready(reasons: list[str]) -> Answer:
    """Answer a readiness probe; ``reasons`` are the words for why it is not ready."""
    if reasons:
        return _json(503, {"status": "unavailable", "reasons": reasons}, "")
    return LIVE
