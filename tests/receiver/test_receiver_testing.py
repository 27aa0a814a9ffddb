"""What ``animica_hooks.testing`` gives to the tests of an app."""

import json
import time

from animica_hooks import verify_webhook
from animica_hooks.testing import make_event, sign

SECRET = "whsec_CANARY-for-the-tests-of-an-app"


def test_sign() -> None:
    """A signature is of now, unless it is to be of another time."""
    body = make_event("a.b")
    assert verify_webhook(SECRET, body, sign(body, SECRET))
    assert not verify_webhook(SECRET, body + b" ", sign(body, SECRET))
    assert sign(body, SECRET, timestamp=1).startswith("t=1,v1=")
    assert sign(body, SECRET, timestamp=0).startswith("t=0,v1=")


def test_make_event() -> None:
    """An event has an id of its own, is created now, and carries what it is given."""
    first, second = (json.loads(make_event("a.b", data)) for data in (None, [1]))
    assert first["id"].startswith("evt_")
    assert first["id"] != second["id"]
    assert abs(time.time() - first["created"]) < 5
    assert ("a.b", {}, [1]) == (first["type"], first["data"], second["data"])


def test_make_event_with_fields() -> None:
    """Any field of the envelope can be given, and more of them."""
    body = make_event("a.b", {"name": "Zoë"}, id="evt_1", created="2026-01-01T00:00:00Z", live=True)
    assert (
        b'{"id":"evt_1","type":"a.b","created":"2026-01-01T00:00:00Z",'
        b'"data":{"name":"Zo\xc3\xab"},"live":true}'
    ) == body
