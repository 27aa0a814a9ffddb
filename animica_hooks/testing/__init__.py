"""What tests of an app that receives webhooks need: deliveries that are signed as real ones are.

body = make_event("payment.succeeded", {"amount": 4200})
headers = {"X-Animica-Signature": sign(body, "whsec_...")}
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from animica_hooks.core import signature


def sign(body: bytes, secret: str, *, timestamp: int | None = None) -> str:
    """Return the value of ``X-Animica-Signature`` for a delivery of ``body``.

    Args:
        secret: the endpoint's signing secret, used verbatim.
        timestamp: unix seconds; now unless given.
    """
    return signature.sign(
        body, secret, timestamp=int(time.time()) if timestamp is None else timestamp
    )


def make_event(type: str, data: Any = None, **fields: Any) -> bytes:
    """Return the raw body of an event with an id of its own, created now.

    Args:
        data: the event's; ``{}`` unless given.
        fields: more of the envelope, or others in place of these: ``id="evt_1"``.
    """
    event = {
        "id": f"evt_{secrets.token_hex(12)}",
        "type": type,
        "created": int(time.time()),
        "data": {} if data is None else data,
    }
    return json.dumps({**event, **fields}, ensure_ascii=False, separators=(",", ":")).encode()
