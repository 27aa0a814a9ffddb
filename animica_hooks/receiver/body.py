"""Read a request's body: bounded, in time, and suspicious of what stands in front of us."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from animica_hooks.receiver import answers
from animica_hooks.receiver.answers import Answer

ARRIVING_BYTES = 64 * 1024 * 1024


class Disconnected(Exception):
    """The client went away before its body was complete."""


class Refused(Exception):
    """The request is to be answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


class BodyReader:
    """Reads the bodies of requests.

    Args:
        most: bytes that a body may have.
        deadline: seconds that it may take.
    """

    def __init__(self, *, most: int, deadline: float) -> None:
        self._most = most
        self._deadline = deadline
        self._arriving = 0  # bytes held of bodies that are not complete, all requests together
        self._arriving_most = max(ARRIVING_BYTES, most)

    async def read(self, receive: Receive, *, declared: int | None) -> bytes:
        """Read a whole body.

        Args:
            declared: the Content-Length; None where there is none.

        Raises:
            Refused: too large (413), too slow (408), not what the client sent (500), or more than
                can be held at a time (503).
            Disconnected: the client went away.
        """
        # Where ``receive`` is uvicorn's own, or ``serve``'s, its request knows what has come and is
        # not read yet.
        request = getattr(receive, "__self__", None)
        all_here = getattr(request, "more_body", None) is False
        unread = getattr(request, "body", None)
        if all_here and declared and not unread:
            # A plain ASGI middleware has read it, and ``receive`` would wait for ever.
            raise Refused(answers.BODY_CONSUMED)
        if all_here and unread:  # nothing to wait for, so no timer
            message = await receive()
            if message["type"] != "http.request":
                raise Disconnected
            body: bytes = message["body"]
            if len(body) > self._most:
                raise Refused(answers.PAYLOAD_TOO_LARGE)
        else:
            body = await self._read_in_time(receive, request, declared)
        if declared is not None and len(body) != declared:
            raise Refused(answers.BODY_CONSUMED)
        return body

    async def _read_in_time(self, receive: Receive, request: object, declared: int | None) -> bytes:
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._deadline):
                await self._read_into(chunks, receive)
        except TimeoutError:
            all_here = getattr(request, "more_body", None) is False
            to_come = getattr(request, "more_body", False)
            is_slow = chunks or to_come or not (declared or all_here)
            raise Refused(answers.BODY_TIMEOUT if is_slow else answers.BODY_CONSUMED) from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _read_into(self, chunks: list[bytes], receive: Receive) -> None:
        """Append chunks as they come, so that they are known should the time run out."""
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Disconnected
                if chunk := message.get("body", b""):
                    chunks.append(chunk)
                    size += len(chunk)
                    self._arriving += len(chunk)
                if size > self._most:
                    raise Refused(answers.PAYLOAD_TOO_LARGE)
                if not message.get("more_body", False):
                    return
                if self._arriving > self._arriving_most:
                    # Nobody has proved to be the provider yet.
                    raise Refused(answers.UNAVAILABLE)
        finally:
            self._arriving -= size
