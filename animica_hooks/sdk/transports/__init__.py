"""The seam to HTTP: what carries a request.

A transport is anything with ``send`` and ``close`` as below. It is given requests for one origin,
follows no redirect, retries nothing, and raises nothing but ``APIConnectionError``,
``APITimeoutError`` and ``APIResponseError`` (for a body that breaks off).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from animica_hooks.errors import APIResponseError, APITimeoutError

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import Headers
    from animica_hooks.sdk.flow import Request

# What is held of one answer: more than the largest of them, and less than a machine's memory.
MAX_HELD_BYTES = 1024 * 1024 * 1024


class Incoming(Protocol):
    """An answer whose head has come."""

    status: int
    headers: Headers

    def read(self) -> bytes:
        """Return the whole body; the connection is free, or closed, after that."""

    def read_some(self, deadline: float | None) -> bytes:
        """Return what has come of the body, waiting for something; empty at its end."""

    def finish(self) -> None:
        """Let go of the connection; it may be kept if no more than the body's end is to come."""

    def close(self) -> None:
        """Let go of the connection, whatever is left of the body; may be called again."""

    def interrupt(self) -> None:
        """Have ``read_some``, in which another thread waits, raise ``APIResponseError``."""


class AsyncIncoming(Protocol):
    """As ``Incoming``, for coroutines."""

    status: int
    headers: Headers

    async def read(self) -> bytes:
        """As ``Incoming.read``."""

    async def read_some(self, deadline: float | None) -> bytes:
        """As ``Incoming.read_some``."""

    async def finish(self) -> None:
        """As ``Incoming.finish``."""

    async def aclose(self) -> None:
        """As ``Incoming.close``."""


@runtime_checkable
class Transport(Protocol):
    """Carries requests to one origin."""

    def send(self, request: Request) -> Incoming:
        """Send a request and return the answer's head.

        Raises:
            APIConnectionError: there is no answer; ``APITimeoutError`` if it took too long.
        """

    def close(self) -> None:
        """Close all connections; the transport is not used after that."""


@runtime_checkable
class AsyncTransport(Protocol):
    """As ``Transport``, for the coroutines of one event loop."""

    async def send(self, request: Request) -> AsyncIncoming:
        """As ``Transport.send``."""

    async def aclose(self) -> None:
        """As ``Transport.close``."""


def remaining(deadline: float) -> float:
    """Return the seconds to a deadline.

    Raises:
        APITimeoutError: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise deadline_passed()
    return left


def within(timeout: float | None, deadline: float | None) -> float | None:
    """Return the seconds that a step may take.

    Raises:
        APITimeoutError: the deadline has passed.
    """
    if deadline is None:
        return timeout
    left = remaining(deadline)
    return left if timeout is None else min(timeout, left)


def check_held(size: int) -> None:
    """Check how much of an answer waits to be taken.

    Raises:
        APIResponseError: it is more than ``MAX_HELD_BYTES``.
    """
    if size > MAX_HELD_BYTES:
        raise APIResponseError("the answer does not end, or is larger than any should be")


def deadline_passed() -> APITimeoutError:
    """Return the error for a deadline, of the whole call or of its first token, that passed."""
    return APITimeoutError("the deadline passed before the answer was complete")
