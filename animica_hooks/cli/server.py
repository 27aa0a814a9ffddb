"""uvicorn's server, around connections of our own.

Rule 1: nothing that a client does, or leaves undone, keeps the server from ending in time.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import uvicorn

from animica_hooks.cli.connection import MAX_LINGERING, Config, Connection, Limits
from animica_hooks.errors import ConfigurationError
from animica_hooks.hooks import Hooks

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SPARE_DESCRIPTORS = 200  # for the database, the listener and whatever the app opens
_STALLED_MS = 30_000  # for a client to take any of what is sent to it
_SWITCH_S = 0.0002  # between two threads that both want to run
# Names such as localhost have IPv6 addresses that the machine may lack.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

Sockets: TypeAlias = list[socket.socket]


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

    config: Config

    def __init__(
        self, config: Config, *, on_start: Callable[[], None], on_stop: Callable[[], None]
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
        # The thread that commits gets at its commit while the loop goes on, not once it is idle.
        sys.setswitchinterval(_SWITCH_S)
        if not self.should_exit:
            self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Do every 0.1 s what is due."""
        ends = await super().on_tick(counter)
        headers = self.server_state.default_headers  # the date
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        if lines != self.config.default_lines:
            self.config.default_lines = lines
            self.config.heads.clear()
        now = asyncio.get_running_loop().time()
        for connection in [one for one in self._connections() if one.due <= now]:
            connection.overdue()
        return ends

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        late = asyncio.get_running_loop().call_later(self._grace, self._hang_up)
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()
            # Those whose clients do not read would wait for them.
            for connection in self._connections() | self.config.lingering:
                connection.abort()
            await asyncio.sleep(0)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as above
        """Begin to stop. uvicorn's own would in the end kill the process by the signal."""
        self._on_stop()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    def _hang_up(self) -> None:
        for connection in list(self._connections()):
            connection.hang_up()

    def _connections(self) -> set[Connection]:
        return cast("set[Connection]", self.server_state.connections)


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
    take = None
    # A subclass that has a call of its own means it to be called.
    if isinstance(app, Hooks) and type(app).__call__ is Hooks.__call__:
        take = app._take
    config = Config(startup, limits, take=take, proxy_headers=proxy_headers)
    server = Server(config, on_start=on_start, on_stop=on_stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run(sockets)
    except SystemExit:
        if startup.error is None:
            raise
        raise startup.error from None


def bind_several(host: str, port: int) -> tuple[Sockets, Callable[[], Sockets]]:
    """Return sockets that keep the port, and what returns those for one more process.

    Raises:
        ConfigurationError: as ``bind``.
    """
    keeping = bind(host, port)
    if sys.platform != "linux":  # elsewhere the kernel does not deal connections out
        return keeping, lambda: [one.dup() for one in keeping]
    # The port is free, so that it is not a stranger's that we share it with.
    port = keeping[0].getsockname()[1]
    for one in keeping:
        one.close()
    return bind(host, port, together=True), lambda: bind(host, port, together=True)


def bind(host: str, port: int, *, together: bool = False) -> list[socket.socket]:
    """Return sockets bound to all addresses of ``host`` that this machine has.

    Args:
        together: with others of this user who say the same.

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
            sockets.append(_bound(family, kind, address, together=together))
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


def _bound(family: int, kind: int, address: Any, *, together: bool) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        if together:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sys.platform == "linux":  # where connections have it from their listener
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
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
