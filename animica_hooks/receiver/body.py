"""Read a request's body: bounded, in time, and suspicious of what stands in front of us."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from animica_hooks.receiver import answers
from animica_hooks.receiver.answers import Answer


class Disconnected(Exception):
    """The client went away before its body was complete."""


class Refused(Exception):
    """The request is to be answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


async def read_body(receive: Receive, *, declared: int | None, most: int, deadline: float) -> bytes:
    """Read the whole body.

    Args:
        declared: the Content-Length; None where there is none.
        most: bytes it may have.
        deadline: seconds it may take.

    Raises:
        Refused: too large (413), too slow (408), or not what the client sent (500).
        Disconnected: the client went away.
    """
    # Where ``receive`` is uvicorn's own, its request knows what has come and is not read yet.
    request = getattr(receive, "__self__", None)
    all_here = getattr(request, "more_body", None) is False
    unread = getattr(request, "body", None)
    chunks: list[bytes] = []
    if all_here and declared and not unread:
        # A plain ASGI middleware has read it, and ``receive`` would wait for ever.
        raise Refused(answers.BODY_CONSUMED)
    try:
        if all_here and unread:  # nothing to wait for, so no timer
            await _read_into(chunks, receive, most)
        else:
            async with asyncio.timeout(deadline):
                await _read_into(chunks, receive, most)
    except TimeoutError:
        to_come = getattr(request, "more_body", False)
        is_slow = chunks or to_come or not (declared or all_here)
        raise Refused(answers.BODY_TIMEOUT if is_slow else answers.BODY_CONSUMED) from None
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if declared is not None and len(body) != declared:
        raise Refused(answers.BODY_CONSUMED)
    return body


async def _read_into(chunks: list[bytes], receive: Receive, most: int) -> None:
    """Append the body's chunks as they come, so that they are known should time run out."""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        if chunk := message.get("body", b""):
            chunks.append(chunk)
            most -= len(chunk)
            if most < 0:
                raise Refused(answers.PAYLOAD_TOO_LARGE)
        more = message.get("more_body", False)
