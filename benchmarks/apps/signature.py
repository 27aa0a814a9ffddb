"""What tutorials call `construct_event`: Stripe's check, written by hand, and `json`.

Shared by the tutorial and by the peers that leave the check to their users.
"""

import hashlib
import hmac
import json
import time
from typing import Any

from benchmarks.apps.common import SIGNING_SECRET

HEADER = "X-Animica-Signature"
TOLERANCE_SECONDS = 300


def verify(payload: bytes, header: str) -> None:
    """Raise ValueError unless the payload was signed with the secret, now."""
    pairs = [item.split("=", 1) for item in header.split(",")]
    timestamps = [value for key, value in pairs if key == "t"]
    signatures = [value for key, value in pairs if key == "v1"]
    if not timestamps:
        raise ValueError("no timestamp")
    signed = f"{timestamps[0]}.{payload.decode()}".encode()
    expected = hmac.new(SIGNING_SECRET.encode(), signed, hashlib.sha256).hexdigest()
    if not any(hmac.compare_digest(expected, signature) for signature in signatures):
        raise ValueError("no signature matches")
    if abs(time.time() - int(timestamps[0])) > TOLERANCE_SECONDS:
        raise ValueError("timestamp outside the tolerance")


def is_valid(payload: bytes, header: str) -> bool:
    """Tell the same."""
    try:
        verify(payload, header)
    except ValueError:
        return False
    return True


def construct_event(payload: bytes, header: str) -> dict[str, Any]:
    """Verify the signature header and return the parsed payload."""
    verify(payload, header)
    parsed: dict[str, Any] = json.loads(payload)
    return parsed
