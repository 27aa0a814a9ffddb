"""HTTP for threads: sockets below, ``wire`` above."""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

from animica_hooks.errors import APIConnectionError, APIError, APITimeoutError
from animica_hooks.sdk.answer import Headers
from animica_hooks.sdk.transports import deadline_passed, within
from animica_hooks.sdk.transports.pool import KEEP_ALIVE_S, MAX_CONNECTIONS, Pool
from animica_hooks.sdk.transports.sockets import keep_alive, tls_context
from animica_hooks.sdk.transports.wire import Proxy, Reply, check_tunnel, written

if TYPE_CHECKING:
    from animica_hooks.sdk.address import Address
    from animica_hooks.sdk.flow import Request

READ_BYTES = 64 * 1024
# How long the end of a body is waited for that nobody needs, so that its connection can be used
# again.
DRAIN_S = 0.25


class DirectLine:
    """A connection."""

    __slots__ = (
        "_address",
        "_buffer",
        "_context",
        "_idle_since",
        "_limited",
        "_poll",
        "_proxy",
        "_socket",
        "reply",
    )

    def __init__(
        self, address: Address, context: ssl.SSLContext | None, proxy: Proxy | None
    ) -> None:
        self._address = address
        self._context = context
        self._proxy = proxy
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._socket: socket.socket | None = None
        self._limited: float | None = None
        self._idle_since = 0.0
        self.reply = Reply()

    def send(self, request: Request) -> None:
        """Send a request and read its answer's head.

        Raises:
            APIError: there is none.
        """
        deadline = request.deadline
        if self._socket is None:
            self._socket = self._connect(request)
        self.reply = reply = Reply()
        try:
            self._limit(within(request.timeout.write, deadline))
            # To an origin with TLS a proxy is a tunnel, and sees no request.
            through = self._proxy if self._context is None else None
            self._socket.sendall(written(request, through))
        except TimeoutError as error:
            raise timed_out("sending the request", deadline) from error
        except OSError:
            # A server may answer before it has read all, and close: the answer says why.
            pass
        while not reply.has_head:
            self.receive(request.timeout.read, deadline)

    def receive(self, timeout: float | None, deadline: float | None) -> None:
        """Read what comes next of the answer.

        Raises:
            APIError: nothing comes, or it breaks off.
        """
        assert self._socket is not None
        limit = within(timeout, deadline)
        try:
            self._limit(limit)
            size = self._socket.recv_into(self._buffer)
        except TimeoutError as error:
            raise timed_out("reading the answer", deadline) from error
        except OSError as error:
            try:
                self.reply.feed(b"")
            except APIError as broken:
                raise broken from error
            return
        self.reply.feed(self._buffer[:size])

    def _limit(self, seconds: float | None) -> None:
        # Setting it is a system call, even to what it is.
        if seconds != self._limited:
            assert self._socket is not None
            self._socket.settimeout(seconds)
            self._limited = seconds

    def _connect(self, request: Request) -> socket.socket:
        deadline = request.deadline
        seconds = within(request.timeout.connect, deadline)
        # One limit for all of it: a proxy may answer byte by byte.
        until = None if seconds is None else time.monotonic() + seconds
        peer = self._proxy or self._address
        opened = None
        try:
            opened = _connected(peer.host, peer.port, until)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(opened)
            opened.settimeout(_left(until))
            if self._proxy is not None and self._proxy.tls:
                opened = tls_context(None).wrap_socket(opened, server_hostname=peer.host)
            if self._context is not None:
                if self._proxy is not None:
                    self._tunnel(self._proxy, opened, until)
                opened = self._context.wrap_socket(opened, server_hostname=self._address.host)
        except TimeoutError as error:
            _close(opened)
            raise timed_out("connecting", deadline) from error
        except (OSError, ValueError) as error:
            _close(opened)
            raise no_connection(error) from error
        except BaseException:
            _close(opened)
            raise
        self._limited = opened.gettimeout()
        self._poll = select.poll()
        self._poll.register(opened, select.POLLIN)
        return opened

    def _tunnel(self, proxy: Proxy, opened: socket.socket, until: float | None) -> None:
        opened.sendall(proxy.tunnel(self._address))
        reply = Reply()
        while not reply.has_head:
            opened.settimeout(_left(until))
            reply.feed(opened.recv(READ_BYTES))
        check_tunnel(reply)
        opened.settimeout(_left(until))

    def is_usable(self) -> bool:
        """Tell whether an idle connection can take a request: not old, and silent."""
        if time.monotonic() - self._idle_since > KEEP_ALIVE_S:
            return False
        # Readable while nothing was asked: the server has closed it, or talks out of turn.
        return not self._poll.poll(0)

    def is_idle(self) -> bool:
        """Tell whether the last answer came to its end and the connection stays open."""
        self._idle_since = time.monotonic()
        return self.reply.keeps_open()

    def close(self) -> None:
        """Close the connection."""
        _close(self._socket)

    def interrupt(self) -> None:
        """Wake the thread that reads from the connection, which is still its own to close."""
        assert self._socket is not None
        try:
            # Not as TLS has it: that would change what the other thread uses.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass


def _connected(host: str, port: int, until: float | None) -> socket.socket:
    """Connect to the first address that answers; each has its share of the time that is left."""
    failure: OSError = OSError("the name has no address")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        left = _left(until)
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(None if left is None else left / (len(addresses) - position))
            opened.connect(address)
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure


def _left(until: float | None) -> float | None:
    """Return the seconds to a moment on the monotonic clock; raise TimeoutError if it is past."""
    if until is None:
        return None
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _close(opened: socket.socket | None) -> None:
    if opened is not None:
        opened.close()


def timed_out(step: str, deadline: float | None) -> APITimeoutError:
    """Return the error for a step that took too long, by its own limit or the deadline."""
    if deadline is not None and time.monotonic() >= deadline:
        return deadline_passed()
    return APITimeoutError(f"timed out while {step}")


def no_connection(error: Exception) -> APIConnectionError:
    """Return the error for a connection that could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return APIConnectionError(f"could not connect: {error.verify_message}")
    why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return APIConnectionError(f"could not connect: {why}")


class DirectTransport:
    """Carries requests to one origin over connections of its own.

    Args:
        address: the origin.
        proxy: a proxy to go through.
        ssl_context: instead of one with the system's authorities.
        max_connections: how many there may be at once; who comes then waits.
    """

    def __init__(
        self,
        address: Address,
        *,
        proxy: Proxy | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        context = tls_context(ssl_context) if address.scheme == "https" else None
        self._pool = Pool(lambda: DirectLine(address, context, proxy), max_connections)

    def __repr__(self) -> str:
        return f"<DirectTransport {self._pool!r}>"

    def send(self, request: Request) -> DirectIncoming:
        """Send a request and return the answer's head."""
        line = self._pool.take(request)
        try:
            line.send(request)
        except BaseException:
            self._pool.give_back(line)
            raise
        return DirectIncoming(self._pool, line, request)

    def close(self) -> None:
        """Close the idle connections now, and the others when their answers are read."""
        self._pool.close()


class DirectIncoming:
    """An answer whose head has come."""

    __slots__ = ("_line", "_pool", "_request", "headers", "status")

    def __init__(self, pool: Pool[DirectLine], line: DirectLine, request: Request) -> None:
        self.status = line.reply.status
        self.headers = Headers(line.reply.headers)
        self._pool = pool
        self._line: DirectLine | None = line
        self._request = request

    def read(self) -> bytes:
        """Return the whole body."""
        line, request = self._line, self._request
        assert line is not None
        try:
            while not line.reply.complete:
                line.receive(request.timeout.read, request.deadline)
            return line.reply.take()
        finally:
            self.close()

    def read_some(self, deadline: float | None) -> bytes:
        """Return what has come of the body, waiting for something; empty at its end."""
        line = self._line
        if line is None:
            return b""
        reply = line.reply
        while not reply.pieces:
            if reply.complete:
                return b""
            line.receive(self._request.timeout.read, deadline)
        return reply.take()

    def finish(self) -> None:
        """Let go of the connection, reading the end of the body if that comes soon."""
        try:
            if self._line is not None and not self._line.reply.complete:
                self._line.receive(DRAIN_S, None)
        except APIError:
            pass
        self.close()

    def interrupt(self) -> None:
        """Have a thread that waits in ``read_some`` go on, with an error."""
        if (line := self._line) is not None:
            line.interrupt()

    def close(self) -> None:
        """Let go of the connection: kept if the body was read to its end, else closed."""
        line, self._line = self._line, None
        if line is not None:
            self._pool.give_back(line)

    def __del__(self) -> None:
        # A stream that nobody closed.
        self.close()
