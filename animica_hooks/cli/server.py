"""uvicorn with the limits that a server on the internet needs and uvicorn does not have.

Rule 1: a request's head is whole within a deadline (408) and a size (431), or the connection ends.
Rule 2: a connection over the cap is answered 503 with Retry-After at once, whoever is silent on
        the others.
Rule 3: every refusal reaches its client: what the client still sends is read for a moment, for
        closing a socket with unread input resets it and takes the answer along.
Rule 4: a request that is whole gets its own answer, whatever comes after it on its connection.
Rule 5: nothing that a client does, or leaves undone, keeps the server from ending in time.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from animica_hooks.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_CONNECTIONS = 1000
MAX_HEAD_BYTES = 64 * 1024
HEAD_DEADLINE_S = 10.0
KEEP_ALIVE_S = 15
GRACE_S = 5
RETRY_AFTER_S = 2
LINGER_S = 1.0
MAX_LINGERING = 100  # connections that are read from after their refusal, at once
_SPARE_DESCRIPTORS = 200  # for the database, the listener and whatever the app opens
# Names such as localhost have IPv6 addresses that the machine may lack.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server allows its clients.

    Attributes:
        connections: open at once.
        head_bytes: of a request line and its headers.
        head_deadline: seconds until they are complete.
        keep_alive: seconds that a connection may be idle between two requests.
        grace: seconds that requests under way have to end at a shutdown.
    """

    connections: int = MAX_CONNECTIONS
    head_bytes: int = MAX_HEAD_BYTES
    head_deadline: float = HEAD_DEADLINE_S
    keep_alive: int = KEEP_ALIVE_S
    grace: int = GRACE_S


def _refusal(status: int, code: str, message: str, *headers: bytes) -> bytes:
    kind = "invalid_request_error" if status < 500 else "api_error"
    body = json.dumps({"error": {"message": message, "type": kind, "code": code}}).encode()
    lines = (
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *headers,
        b"connection: close",
    )
    return STATUS_LINE[status] + b"\r\n".join([*lines, b"", body])


MALFORMED = _refusal(400, "malformed_request", "This is not well-formed HTTP.")
HEAD_TOO_LATE = _refusal(408, "head_timeout", "The request's headers did not arrive in time.")
HEAD_TOO_LARGE = _refusal(431, "head_too_large", "The request's headers are too large.")
BUSY = _refusal(
    503,
    "unavailable",
    "The server can not take another request now. Send it again later.",
    b"retry-after: %d" % RETRY_AFTER_S,
)


class _HeadTooLarge(Exception):
    """Makes the parser stop."""


class _Config(uvicorn.Config):
    """uvicorn's settings, and ours, which its protocol finds here."""

    def __init__(self, app: ASGIApp, limits: Limits, *, proxy_headers: bool) -> None:
        super().__init__(
            app,
            interface="asgi3",
            http=GuardedProtocol,
            ws="none",
            access_log=False,
            server_header=False,
            proxy_headers=proxy_headers,
            timeout_keep_alive=limits.keep_alive,
            # Of its own accord it would wait for ever. See ``Server.shutdown``.
            timeout_graceful_shutdown=limits.grace + 1,
            log_config=None,
            # Strangers cause its warnings; our own log is rate-limited.
            log_level="critical",
        )
        self.limits = limits
        self.lingering: set[_Transport] = set()


class _Transport(asyncio.Transport):
    """A connection as uvicorn sees it; closes by rule 3."""

    def __init__(self, connection: asyncio.Transport, protocol: GuardedProtocol) -> None:
        super().__init__()
        self._connection = connection
        self._protocol = protocol
        self._closing = False
        self._end: asyncio.TimerHandle | None = None
        self.write = connection.write  # type: ignore[method-assign]
        self.get_extra_info = connection.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = connection.pause_reading  # type: ignore[method-assign]
        self.resume_reading = connection.resume_reading  # type: ignore[method-assign]

    def is_closing(self) -> bool:
        return self._closing or self._connection.is_closing()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        lingering = self._protocol.config.lingering
        if not self._protocol.input_unread() or len(lingering) >= MAX_LINGERING:
            self._connection.close()
            return
        lingering.add(self)
        self._connection.write_eof()
        self._connection.resume_reading()
        self._end = self._protocol.loop.call_later(LINGER_S, self._connection.abort)

    def lost(self) -> None:
        """The connection is gone."""
        self._closing = True
        if self._end is not None:
            self._end.cancel()
            self._protocol.config.lingering.discard(self)


class GuardedProtocol(HttpToolsProtocol):
    """One connection: uvicorn's, with limits on what comes before the app is asked."""

    config: _Config
    transport: _Transport

    def __init__(
        self,
        config: _Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = config.limits
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._in_head = True  # what comes next belongs to a request's head
        self._head_begun = False
        self._head_bytes = 0  # of the head, and of trailers, as the parser has handed it over
        self._held_bytes = 0  # received since the parser last handed something over

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Transport(transport, self))
        if len(self.connections) > self._limits.connections:
            self._refuse(BUSY)
        else:
            self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self.transport.lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._held_bytes += len(data)
        super().data_received(data)
        if self._held_bytes > self._limits.head_bytes:
            self._refuse(HEAD_TOO_LARGE)
        elif self._in_head and (self._head_begun or self._held_bytes):
            self._start_deadline()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_begun = True
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)  # ": " and the end of the line

    def on_headers_complete(self) -> None:
        self._stop_deadline()
        self._in_head = self._head_begun = False
        self._held_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._held_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._held_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.response_complete and self.cycle.more_body:
            # uvicorn would read on, with no deadline, for a body that nobody wants.
            self.transport.close()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Answer what the parser could not go on with."""
        too_large = self._head_bytes > self._limits.head_bytes
        self._refuse(HEAD_TOO_LARGE if too_large else MALFORMED)

    def input_unread(self) -> bool:
        """Tell whether the client may still be sending."""
        return self._refused or (self.cycle is not None and self.cycle.more_body)

    def hang_up(self) -> None:
        """End a connection whose request has not arrived by the end of the grace."""
        self._refuse(BUSY)

    def _count(self, size: int) -> None:
        self._held_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            raise _HeadTooLarge

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.head_deadline, self._head_too_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_too_late(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(HEAD_TOO_LATE)
        else:  # the answer to the request before comes first
            self._start_deadline()

    def _refuse(self, answer: bytes) -> None:
        """Answer instead of the app, and end the connection."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_deadline()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False  # closes after its own answer
                return
            cycle.disconnected = True
            cycle.message_event.set()
            answer = b"" if cycle.response_started else answer
        self.connections.discard(self)
        self.transport.write(answer)
        self.transport.close()


class _Startup:
    """An ASGI app whose failure to start is kept, to be told in one place."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.error: BaseException | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        return self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def quietly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                # Where an error follows it says more.
                self.error = ConfigurationError(
                    f"the app did not start: {message.get('message') or 'it did not say why'}"
                )
                message = {"type": message["type"]}
            await send(message)

        try:
            await self._app(scope, receive, quietly)
        except BaseException as error:
            self.error = error
            raise


class Server(uvicorn.Server):
    """uvicorn's server, which tells when it has started and at once when it is told to stop."""

    def __init__(
        self, config: _Config, *, on_start: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._grace = config.limits.grace
        self._on_start = on_start
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        # What has been imported lives for ever: looking through it again and again for garbage
        # makes the slowest answers slow.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        if not self.should_exit:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        late = asyncio.get_running_loop().call_later(self._grace, self._hang_up)
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as above
        """Begin to stop. uvicorn's own would in the end kill the process by the signal."""
        self._on_stop()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, GuardedProtocol):
                connection.hang_up()


def serve(
    app: ASGIApp,
    sockets: list[socket.socket],
    *,
    limits: Limits,
    proxy_headers: bool = False,
    on_start: Callable[[], None],
    on_stop: Callable[[], None],
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then let what is under way end.

    Args:
        sockets: bound, see ``bind``.
        on_start: called when the app has started.
        on_stop: called at once at a signal.

    Raises:
        whatever the app's lifespan raised when it started.
    """
    _allow_descriptors(limits.connections + MAX_LINGERING + _SPARE_DESCRIPTORS)
    startup = _Startup(app)
    config = _Config(startup, limits, proxy_headers=proxy_headers)
    server = Server(config, on_start=on_start, on_stop=on_stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run(sockets)
    except SystemExit:
        if startup.error is None:
            raise
        raise startup.error from None


def bind(host: str, port: int) -> list[socket.socket]:
    """Return sockets bound to all addresses of ``host`` that this machine has.

    Raises:
        ConfigurationError: there are none, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigurationError(f"host {host!r} has no address: write one in --host.") from None
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    for family, kind, _, _, address in found:
        try:
            sockets.append(_bound(family, kind, address))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                refused = error
                break
    if refused is None and sockets:
        return sockets
    for bound in sockets:
        bound.close()
    if refused is None:
        raise ConfigurationError(f"{host} is no address of this machine: write one in --host.")
    if refused.errno == errno.EADDRINUSE:
        raise ConfigurationError(f"port {port} of {host} is taken: choose another with --port.")
    raise ConfigurationError(f"port {port} of {host} can not be used: {refused.strerror}.")


def _bound(family: int, kind: int, address: Any) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit on open files, where the hard one allows that."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
