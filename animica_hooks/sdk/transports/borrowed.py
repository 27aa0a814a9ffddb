"""HTTP by a client of httpx or httpx2 that the user made: for whose tests or proxies rest on it.

Both packages have the same names; which one is meant is told by the client's own module.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from animica_hooks.errors import (
    APIConnectionError,
    APIError,
    APIRequestError,
    APIResponseError,
    APITimeoutError,
    ClientClosed,
    ConfigurationError,
)
from animica_hooks.sdk.answer import Headers
from animica_hooks.sdk.transports import check_held, deadline_passed, within

if TYPE_CHECKING:
    from animica_hooks.sdk.flow import Request


def package_of(thing: object) -> Any:
    """Return the httpx or httpx2 whose client or transport something is.

    Raises:
        ConfigurationError: it is of neither.
    """
    for kind in type(thing).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("httpx", "httpx2"):
            return sys.modules[root]
    raise ConfigurationError(
        f"expected a client or transport of httpx or httpx2, not {type(thing).__name__}."
    )


def _options(package: Any, request: Request) -> dict[str, Any]:
    connect, read, write, pool = (
        within(step, request.deadline) for step in request.timeout.as_tuple()
    )
    return {
        "method": request.method,
        "url": request.address.origin + request.target,
        # As bytes: text would have to be ASCII.
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in request.headers],
        "content": request.body,
        "timeout": package.Timeout(connect=connect, read=read, write=write, pool=pool),
    }


def _as_ours(error: Exception, package: Any, deadline: float | None) -> APIError:
    if isinstance(error, package.TimeoutException):
        if deadline is not None and time.monotonic() >= deadline:
            return deadline_passed()
        return APITimeoutError(f"timed out: {type(error).__name__}")
    if isinstance(error, RuntimeError) and "closed" in str(error):
        return ClientClosed("the http_client was closed")
    if isinstance(error, package.InvalidURL):
        return APIRequestError("the http_client does not take the URL: its query may be too long")
    return APIConnectionError(f"the connection failed: {type(error).__name__}")


def _broken_off(error: Exception, package: Any, deadline: float | None) -> APIError:
    if isinstance(error, package.TimeoutException):
        return _as_ours(error, package, deadline)
    return APIResponseError(f"the answer broke off: {type(error).__name__}")


def _failures(package: Any) -> tuple[type[Exception], ...]:
    return (package.HTTPError, package.InvalidURL, package.StreamError, RuntimeError, OSError)


class _Borrowed:
    """A user's client, which is never closed, or one made of a user's transport.

    Args:
        client: a client of httpx or httpx2.
        transport: where there is no client: the transport to make one of.
        proxy: returns a proxy's URL, for the client that is made.
    """

    _kind: ClassVar[str]

    def __init__(self, client: Any, transport: Any, proxy: Callable[[], str | None]) -> None:
        self._package = package_of(client or transport)
        self._owned = client is None
        kind = getattr(self._package, self._kind)
        if client is None:
            client = kind(transport=transport, proxy=proxy(), trust_env=False)
        if not isinstance(client, kind):
            given = type(client).__name__
            raise ConfigurationError(
                f"http_client must be of class {self._kind} here, not {given}."
            )
        self._client = client


class BorrowedTransport(_Borrowed):
    """Carries requests over a Client."""

    _kind = "Client"

    def send(self, request: Request) -> BorrowedIncoming:
        """Send a request and return the answer's head."""
        try:
            prepared = self._client.build_request(**_options(self._package, request))
            response = self._client.send(prepared, stream=True, follow_redirects=False)
        except _failures(self._package) as error:
            raise _as_ours(error, self._package, request.deadline) from error
        return BorrowedIncoming(response, self._package, request.deadline)

    def close(self) -> None:
        """Close the client, unless another made it."""
        if self._owned:
            self._client.close()


class _BorrowedHead:
    """An answer whose head has come over a user's client."""

    def __init__(self, response: Any, package: Any, deadline: float | None) -> None:
        self.status: int = response.status_code
        self.headers = Headers(response.headers.raw)
        self._response = response
        self._package = package
        self._deadline = deadline


class BorrowedIncoming(_BorrowedHead):
    """An answer over a Client."""

    def __init__(self, response: Any, package: Any, deadline: float | None) -> None:
        super().__init__(response, package, deadline)
        self._pieces: Iterator[bytes] = response.iter_bytes()

    def read(self) -> bytes:
        """Return the whole body."""
        pieces = []
        size = 0
        try:
            while piece := self.read_some(self._deadline):
                size += len(piece)
                check_held(size)
                pieces.append(piece)
        finally:
            self.close()
        return b"".join(pieces)

    def read_some(self, deadline: float | None) -> bytes:
        """Return what has come of the body, waiting for something; empty at its end."""
        try:
            piece = next(self._pieces, b"")
        except _failures(self._package) as error:
            raise _broken_off(error, self._package, deadline) from error
        if deadline is not None and time.monotonic() >= deadline:
            raise deadline_passed()
        return piece

    def finish(self) -> None:
        """Let go of the connection."""
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._response.close()

    def interrupt(self) -> None:
        """Close the response, as far as its package can while it is read."""
        self._response.close()


class AsyncBorrowedTransport(_Borrowed):
    """As ``BorrowedTransport``, for an AsyncClient."""

    _kind = "AsyncClient"

    async def send(self, request: Request) -> AsyncBorrowedIncoming:
        """Send a request and return the answer's head."""
        try:
            prepared = self._client.build_request(**_options(self._package, request))
            async with asyncio.timeout(within(None, request.deadline)):
                response = await self._client.send(prepared, stream=True, follow_redirects=False)
        except TimeoutError:
            raise deadline_passed() from None
        except _failures(self._package) as error:
            raise _as_ours(error, self._package, request.deadline) from error
        return AsyncBorrowedIncoming(response, self._package, request.deadline)

    async def aclose(self) -> None:
        """Close the client, unless another made it."""
        if self._owned:
            await self._client.aclose()


class AsyncBorrowedIncoming(_BorrowedHead):
    """As ``BorrowedIncoming``, for coroutines."""

    def __init__(self, response: Any, package: Any, deadline: float | None) -> None:
        super().__init__(response, package, deadline)
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()

    async def read(self) -> bytes:
        """Return the whole body."""
        pieces = []
        size = 0
        try:
            while piece := await self.read_some(self._deadline):
                size += len(piece)
                check_held(size)
                pieces.append(piece)
        finally:
            await self.aclose()
        return b"".join(pieces)

    async def read_some(self, deadline: float | None) -> bytes:
        """Return what has come of the body, waiting for something; empty at its end."""
        try:
            async with asyncio.timeout(within(None, deadline)):
                return await anext(self._pieces, b"")
        except TimeoutError:
            raise deadline_passed() from None
        except _failures(self._package) as error:
            raise _broken_off(error, self._package, deadline) from error

    async def finish(self) -> None:
        """Let go of the connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._response.aclose()
