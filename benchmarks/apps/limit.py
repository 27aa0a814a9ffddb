"""The limit: verify, parse, answer, and store nothing. Nothing durable can be faster."""

import msgspec

from benchmarks.apps import asgi

ACCEPTED = asgi.start(204)
REFUSED = asgi.start(400)


class Envelope(msgspec.Struct):
    """What any receiver must know of an event before it can store it."""

    id: str
    type: str


decoder = msgspec.json.Decoder(Envelope)


async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
    """Answer 204 to an authentic, well-formed event and 400 to anything else."""
    assert scope["type"] == "http"
    body = await asgi.read(receive)
    await send(ACCEPTED if _is_acceptable(scope, body) else REFUSED)
    await send(asgi.END)


def _is_acceptable(scope: asgi.Scope, body: bytes) -> bool:
    if not asgi.is_authentic(scope, body):
        return False
    try:
        envelope = decoder.decode(body)
    except msgspec.DecodeError:
        return False
    return bool(envelope.id and envelope.type)
