"""Which connection a request takes: the last one that became idle, or a new one.

There is one origin only, so nothing has to be searched. (httpcore2's own pool looks at every
connection for every request, probing their sockets: at 64 in flight that costs more than the rest.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from animica_hooks.errors import APITimeoutError
from animica_hooks.sdk.transports import within

if TYPE_CHECKING:
    import asyncio

    from animica_hooks.sdk.flow import Request

MAX_CONNECTIONS = 1000
KEEP_ALIVE_S = 30.0


class Line(Protocol):
    """A connection, as a pool sees it."""

    def is_usable(self) -> bool:
        """Tell whether an idle connection can take a request."""

    def is_idle(self) -> bool:
        """Tell whether the last answer came to its end and the connection stays open."""

    def close(self) -> None:
        """Close the connection at once."""


L = TypeVar("L", bound=Line)


def full() -> APITimeoutError:
    """Return the error for a pool that had no connection free in time."""
    return APITimeoutError("timed out while waiting for a free connection")


class Pool(Generic[L]):
    """The connections of a transport for threads.

    Args:
        make: makes a connection, which need not be open yet.
        size: how many there may be at once; who comes then waits.
    """

    def __init__(self, make: Callable[[], L], size: int) -> None:
        self._make = make
        self._idle: list[L] = []
        self._places = threading.BoundedSemaphore(size)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Pool {len(self._idle)} idle>"

    def take(self, request: Request) -> L:
        """Return a connection for a request.

        Raises:
            APITimeoutError: there was none in time.
        """
        if not self._places.acquire(timeout=within(request.timeout.pool, request.deadline)):
            raise full()
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:
                break
            if line.is_usable():
                return line
            line.close()
        return self._make()

    def give_back(self, line: L) -> None:
        """Keep a connection for the next request, if it can serve one."""
        if line.is_idle():
            self._idle.append(line)
            if self._closed:
                # Looked at last: another thread may have closed the pool just now.
                self.close()
        else:
            line.close()
        self._places.release()

    def close(self) -> None:
        """Close the idle connections now, and the others when their answers are read."""
        self._closed = True
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:
                break
            line.close()


async def _keep(lines: set[Line]) -> AsyncGenerator[None]:
    """Close the connections when the loop ends, or when nobody holds this generator any more.

    Event loops close the asynchronous generators that began in them before they stop, and those
    that were collected: the one hook that ``asyncio.run``, uvloop and test runners have in common.
    """
    pid = os.getpid()
    try:
        yield
    finally:
        # A forked child would reach into its parent's selector.
        if pid == os.getpid():
            while lines:
                lines.pop().close()


class AsyncPool(Generic[L]):
    """The connections of a transport for the coroutines of one event loop."""

    def __init__(self, make: Callable[[], L], size: int) -> None:
        from asyncio import Semaphore

        self._make = make
        self._all: set[Line] = set()
        self._idle: list[L] = []
        self._places: asyncio.Semaphore = Semaphore(size)
        self._closed = False
        self._keeper: AsyncGenerator[None] | None = None

    def __repr__(self) -> str:
        return f"<AsyncPool {len(self._idle)} of {len(self._all)} idle>"

    async def take(self, request: Request) -> L:
        """Return a connection for a request.

        Raises:
            APITimeoutError: there was none in time.
        """
        if self._keeper is None:
            self._keeper = _keep(self._all)
            await anext(self._keeper)
        if self._places.locked():
            await self._wait(request)
        else:
            await self._places.acquire()
        while self._idle:
            line = self._idle.pop()
            if line.is_usable():
                return line
            self._drop(line)
        line = self._make()
        self._all.add(line)
        return line

    async def _wait(self, request: Request) -> None:
        from asyncio import timeout

        try:
            async with timeout(within(request.timeout.pool, request.deadline)):
                await self._places.acquire()
        except TimeoutError:
            raise full() from None

    def _drop(self, line: L) -> None:
        line.close()
        self._all.discard(line)

    def give_back(self, line: L) -> None:
        """Keep a connection for the next request, if it can serve one."""
        if line.is_idle() and not self._closed:
            self._idle.append(line)
        else:
            self._drop(line)
        self._places.release()

    async def aclose(self) -> None:
        """Close the idle connections now, and the others when their answers are read."""
        self._closed = True
        while self._idle:
            self._drop(self._idle.pop())
        if self._keeper is not None and not self._all:
            # Left to be collected it would need a task, which a loop that ends here never runs.
            await self._keeper.aclose()
