"""Read a request's body: bounded, in time, and suspicious of what stands in front of us."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from animica_hooks.receiver import answers
from animica_hooks.receiver.answers import Answer


class Disconnected(Exception):  # noqa: N818 - nobody is left to be told
    """The client went away before its body was complete."""


class Refused(Exception):  # noqa: N818 - an answer, on its way out
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
    if declared and _is_spent(receive):
        raise Refused(answers.BODY_CONSUMED)
    size = 0
    try:
        async with asyncio.timeout(deadline):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                body: bytes = message.get("body", b"")
                size = len(body)
            else:
                chunks: list[bytes] = []
                while True:
                    if message["type"] != "http.request":
                        raise Disconnected
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > most:
                        raise Refused(answers.PAYLOAD_TOO_LARGE)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        break
                    message = await receive()
                body = b"".join(chunks)
    except TimeoutError:
        slow = size or not declared or _is_to_come(receive)
        raise Refused(answers.BODY_TIMEOUT if slow else answers.BODY_CONSUMED) from None
    if size > most:
        raise Refused(answers.PAYLOAD_TOO_LARGE)
    if declared is not None and size != declared:
        raise Refused(answers.BODY_CONSUMED)
    return body


def _is_spent(receive: Receive) -> bool:
    """Tell whether the server has handed out the whole body already.

    A plain ASGI middleware that has read the body leaves a ``receive`` that waits for ever. Where
    ``receive`` is uvicorn's own, its request says how much is left.
    """
    request = getattr(receive, "__self__", None)
    return getattr(request, "more_body", None) is False and getattr(request, "body", None) == b""


def _is_to_come(receive: Receive) -> bool:
    """Tell whether the server knows that the client has not sent all of the body."""
    return getattr(getattr(receive, "__self__", None), "more_body", None) is True
