"""HTTP for the coroutines of one event loop: ``wire`` on asyncio's transports.

A connection is a protocol of the loop's own transport: what arrives is parsed at once, and the one
coroutine that waits for it is woken. There is no task and no cancel scope for each read.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Iterable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from animica_hooks.errors import APIError, APIRequestError
from animica_hooks.sdk.answer import Headers
from animica_hooks.sdk.transports import within
from animica_hooks.sdk.transports.direct import DRAIN_S, READ_BYTES, no_connection, timed_out
from animica_hooks.sdk.transports.pool import KEEP_ALIVE_S, MAX_CONNECTIONS, AsyncPool
from animica_hooks.sdk.transports.sockets import keep_alive, tls_context
from animica_hooks.sdk.transports.wire import Proxy, Reply, check_tunnel, written

if TYPE_CHECKING:
    import ssl

    from animica_hooks.sdk.address import Address
    from animica_hooks.sdk.flow import Request

# Reading pauses when this much of a body waits to be taken.
BUFFERED_BYTES = 256 * 1024
ADDRESS_HEAD_START_S = 0.25


class AsyncDirectLine(asyncio.BufferedProtocol):
    """A connection; one request at a time.

    Args:
        buffer: what arrives is read into, and used before anything else happens in the event loop:
            one serves all its connections. (Without one, asyncio allocates and frees 256 KiB for
            each read, by four system calls.)
    """

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | None,
        proxy: Proxy | None,
        buffer: memoryview,
    ) -> None:
        self._address = address
        self._context = context
        self._proxy = proxy
        self._buffer = buffer
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._idle_since = 0.0
        self._ended = False
        self._paused = False
        self._buffered = 0
        self._failure: APIError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._expires = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self.reply = Reply()

    async def send(self, request: Request) -> None:
        """Send a request and read its answer's head.

        Raises:
            APIError: there is none.
        """
        if self._transport is None:
            await self._connect(request)
        assert self._transport is not None
        self.reply = reply = Reply()
        self._failure = None
        if self._ended:
            # The server was gone as soon as it was there: nothing will wake this.
            self._feed(b"")
        # To an origin with TLS a proxy is a tunnel, and sees no request.
        self._transport.write(written(request, self._proxy if self._context is None else None))
        if self._drained is not None:
            try:
                async with asyncio.timeout(within(request.timeout.write, request.deadline)):
                    await self._drained
            except TimeoutError:
                raise timed_out("sending", request.deadline) from None
        while not reply.has_head:
            await self.receive(request.timeout.read, request.deadline)

    async def receive(self, limit: float | None, deadline: float | None) -> None:
        """Wait for what comes next of the answer.

        Raises:
            APIError: nothing comes, or it breaks off.
        """
        if self._failure is not None:
            raise self._failure
        if self._paused:
            self._resume()
        self._waiter = waiter = self.loop.create_future()
        try:
            self._watch(within(limit, deadline))
            await waiter
        except TimeoutError:
            raise timed_out("reading the answer", deadline) from None
        finally:
            self._waiter = None
        if self._failure is not None:
            raise self._failure

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        if self._paused:
            self._resume()
        self._buffered = 0
        return self.reply.take()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _watch(self, seconds: float | None) -> None:
        """Have the waiter fail after so long.

        The alarm of the last read is left where it is: nearly always the next comes long before.
        """
        self._expires = math.inf if seconds is None else self.loop.time() + seconds
        if self._alarm is None or self._expires < self._alarm.when():
            self._set_alarm()

    def _set_alarm(self) -> None:
        self._drop_alarm()
        if self._expires != math.inf:
            self._alarm = self.loop.call_at(self._expires, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._waiter is None or self._waiter.done():
            return
        if self.loop.time() < self._expires:
            self._set_alarm()
        else:
            self._waiter.set_exception(TimeoutError())

    def _drop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _connect(self, request: Request) -> None:
        try:
            async with asyncio.timeout(within(request.timeout.connect, request.deadline)):
                if self._proxy is None:
                    await self._open(self._address.host, self._address.port, self._context)
                else:
                    await self._open_through(self._proxy)
        except TimeoutError as error:
            raise timed_out("connecting", request.deadline) from error
        except (OSError, ValueError) as error:
            raise no_connection(error) from error

    async def _open(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        name = None if context is None else host
        if ":" in host or host[-1:].isdigit():
            await self.loop.create_connection(
                lambda: self, host, port, ssl=context, server_hostname=name
            )
        else:
            opened = await _connected(self.loop, host, port)
            await self.loop.create_connection(
                lambda: self, sock=opened, ssl=context, server_hostname=name
            )
        assert self._transport is not None
        keep_alive(self._transport.get_extra_info("socket"))

    async def _open_through(self, proxy: Proxy) -> None:
        await self._open(proxy.host, proxy.port, tls_context(None) if proxy.tls else None)
        if self._context is None:
            return
        assert self._transport is not None
        self._transport.write(proxy.tunnel(self._address))
        try:
            while not self.reply.has_head:
                await self.receive(None, None)
            check_tunnel(self.reply)
        finally:
            # It answers no request: a connection that gets no further must not look idle, or the
            # next request would be written into it, key and all, without TLS.
            self.reply = Reply()
        self._transport = await self.loop.start_tls(
            self._transport, self, self._context, server_hostname=self._address.host
        )
        if self._transport is None:
            raise ConnectionResetError

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._feed(self._buffer[:nbytes])
        self._buffered += nbytes
        transport = self._transport
        if self._buffered > BUFFERED_BYTES and not self._paused and self._waiter is None:
            self._paused = True
            if transport is not None:
                transport.pause_reading()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        _wake(self._drained)

    def _end(self, cause: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._feed(b"", cause)

    def _feed(self, data: bytes | memoryview, cause: Exception | None = None) -> None:
        if self._failure is None and not (self.reply.complete and not data):
            try:
                self.reply.feed(data)
            except APIError as error:
                error.__cause__ = cause or error.__cause__
                self._failure = error
        _wake(self._waiter)

    def pause_writing(self) -> None:
        self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        _wake(self._drained)
        self._drained = None

    # What the pool calls.

    def is_usable(self) -> bool:
        """Tell whether an idle connection can take a request: open, not old, and silent."""
        old = time.monotonic() - self._idle_since > KEEP_ALIVE_S
        return not (self._ended or old) and self.reply.keeps_open()

    def is_idle(self) -> bool:
        """Tell whether the last answer came to its end and the connection stays open."""
        self._idle_since = time.monotonic()
        self._drop_alarm()
        self._buffered = 0
        if self._paused:
            self._resume()
        return not self._ended and self.reply.keeps_open()

    def close(self) -> None:
        """Close the connection at once: nothing that is to be sent waits in it."""
        self._drop_alarm()
        transport, self._transport = self._transport, None
        if transport is not None and not self.loop.is_closed():
            transport.abort()


_Address: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]"


async def _connected(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Connect to the first address that answers; each has a head start before the next.

    A name may have an IPv6 address that does not answer: https://www.rfc-editor.org/rfc/rfc8305.
    asyncio has this as well, and forgets a socket that was connected when it is cancelled.
    """
    waiting = _alternating(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    failure: BaseException | None = OSError("the name has no address")
    running: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or running:
            if waiting:
                running.add(loop.create_task(_opened(loop, waiting.pop(0))))
            done, _ = await asyncio.wait(
                running,
                timeout=ADDRESS_HEAD_START_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                running.remove(task)
                failure = task.exception()
                if failure is None:
                    return task.result()
        assert failure is not None
        raise failure
    finally:
        await _given_up(running)


def _alternating(addresses: Iterable[_Address]) -> list[_Address]:
    """Return the addresses with their families in turn: a whole family may be out of reach."""
    families: dict[int, list[_Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [one for several in zip_longest(*families.values()) for one in several if one]


async def _opened(loop: asyncio.AbstractEventLoop, address: _Address) -> socket.socket:
    family, kind, protocol, _, where = address
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setblocking(False)
        await loop.sock_connect(opened, where)
    except BaseException:
        opened.close()
        raise
    return opened


async def _given_up(running: set[asyncio.Task[socket.socket]]) -> None:
    """End attempts to connect that nobody needs, and close what they had connected."""
    for task in running:
        # What is cancelled closes its socket itself.
        if not task.cancel() and not task.cancelled() and task.exception() is None:
            task.result().close()
    if running:
        await asyncio.wait(running)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class AsyncDirectTransport:
    """As ``DirectTransport``, in one event loop."""

    def __init__(
        self,
        address: Address,
        *,
        proxy: Proxy | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        context = tls_context(ssl_context) if address.scheme == "https" else None
        buffer = memoryview(bytearray(READ_BYTES))
        self._pool = AsyncPool(
            lambda: AsyncDirectLine(address, context, proxy, buffer), max_connections
        )

    def __repr__(self) -> str:
        return f"<AsyncDirectTransport {self._pool!r}>"

    async def send(self, request: Request) -> AsyncDirectIncoming:
        """Send a request and return the answer's head."""
        line = await self._pool.take(request)
        try:
            await line.send(request)
        except BaseException:
            self._pool.give_back(line)
            raise
        return AsyncDirectIncoming(self._pool, line, request)

    async def aclose(self) -> None:
        """Close the idle connections now, and the others when their answers are read."""
        await self._pool.aclose()
        # The event loop closes the sockets in its next round.
        await asyncio.sleep(0)


class AsyncDirectIncoming:
    """An answer whose head has come."""

    __slots__ = ("_line", "_pool", "_request", "headers", "status")

    def __init__(
        self, pool: AsyncPool[AsyncDirectLine], line: AsyncDirectLine, request: Request
    ) -> None:
        self.status = line.reply.status
        self.headers = Headers(line.reply.headers)
        self._pool = pool
        self._line: AsyncDirectLine | None = line
        self._request = request

    async def read(self) -> bytes:
        """Return the whole body."""
        line, request = self._line, self._request
        assert line is not None
        try:
            while not line.reply.complete:
                await line.receive(request.timeout.read, request.deadline)
            return line.take()
        finally:
            await self.aclose()

    async def read_some(self, deadline: float | None) -> bytes:
        """Return what has come of the body, waiting for something; empty at its end."""
        line = self._line
        if line is None:
            return b""
        if asyncio.get_running_loop() is not line.loop:
            raise APIRequestError("a stream is read in the event loop that it was begun in")
        reply = line.reply
        while not reply.pieces:
            if reply.complete:
                return b""
            await line.receive(self._request.timeout.read, deadline)
        return line.take()

    async def finish(self) -> None:
        """Let go of the connection, reading the end of the body if that comes soon."""
        try:
            if self._line is not None and not self._line.reply.complete:
                await self._line.receive(DRAIN_S, None)
        except APIError:
            pass
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connection: kept if the body was read to its end, else closed."""
        line, self._line = self._line, None
        if line is not None:
            self._pool.give_back(line)

    def __del__(self) -> None:
        # A stream that nobody closed, collected in whatever thread.
        line, self._line = self._line, None
        if line is not None and not line.loop.is_closed():
            line.loop.call_soon_threadsafe(self._pool.give_back, line)
