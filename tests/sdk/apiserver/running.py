"""The server itself: uvicorn's HTTP protocol in a thread, plain and with TLS, with all spaces."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import socket
import ssl
import struct
import threading
from functools import partial
from types import TracebackType
from typing import Any, Self

import trustme
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from apiserver.exchange import Exchange, Receive, Send
from apiserver.providers import PROVIDERS
from apiserver.space import PATIENCE_SECONDS, Recorded, Space

# Idle connections are closed by tests and clients, never by the server of its own accord.
KEEP_ALIVE_SECONDS = 3600
# Zero seconds of lingering makes a close a reset: struct linger of setsockopt.
LINGER_ZERO = struct.pack("ii", 1, 0)


class Connection:
    """A client's connection, with the means to break it."""

    def __init__(self, number: int, transport: asyncio.Transport) -> None:
        self.number = number
        self.spaces: set[Space] = set()
        self.is_open = True
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._transport.write(data)

    def close(self) -> None:
        """Close once all that was written is sent."""
        self._transport.close()

    def reset(self) -> None:
        """Reset: the other side learns it as an error."""
        # Not a TLS shutdown, but the socket's.
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO
        )
        self._transport.abort()

    def close_soon(self) -> None:
        """Close, from another thread."""
        self._loop.call_soon_threadsafe(self._transport.close)

    def lost(self) -> None:
        """Note that it is no more, once the socket itself is closed."""
        # The loop tells the protocol before it closes the socket.
        self._loop.call_soon(self._note_lost)

    def _note_lost(self) -> None:
        self.is_open = False
        for space in self.spaces:
            space.notify()


class Protocol(HttpToolsProtocol):
    """Uvicorn's, which shows the app the connection under a request."""

    numbers = itertools.count(1)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection = Connection(next(self.numbers), transport)
        self.app_state = {"connection": self._connection}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.lost()


class APIServer:
    """A context manager: inside the block it listens on this machine, at an origin with TLS too."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self._spaces: dict[str, Space] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="apiserver", daemon=True)
        self._listening = threading.Event()
        self._stopping = asyncio.Event()
        # Both are bound here, so that the ports are known at once.
        self._plain, self._secure = _listener(), _listener()
        self.origin = f"http://127.0.0.1:{self._plain.getsockname()[1]}"
        # The same place by another name: another origin to anyone who compares hosts.
        self.other_origin = self.origin.replace("127.0.0.1", "localhost")
        self.secure_origin = f"https://127.0.0.1:{self._secure.getsockname()[1]}"

    def __enter__(self) -> Self:
        """Start to listen."""
        self._thread.start()
        if not self._listening.wait(PATIENCE_SECONDS):
            raise TimeoutError("the server did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Break off what is under way, and stop."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_SECONDS)

    def space(self) -> Space:
        """Make a space of its own for a test."""
        token = secrets.token_hex(6)
        space = Space(token=token, origin=self.origin, secure_origin=self.secure_origin)
        self._spaces[token] = space
        return space

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        config.load()
        state = ServerState()
        make = partial(Protocol, config=config, server_state=state, app_state={})
        secure = await self._loop.create_server(make, sock=self._secure, ssl=self._certificate())
        plain = await self._loop.create_server(make, sock=self._plain)
        self._listening.set()
        await self._stopping.wait()
        plain.close()
        secure.close()
        for protocol in list(state.connections):
            protocol.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*state.tasks, return_exceptions=True)

    def _certificate(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context

    async def _app(self, scope: Any, receive: Receive, send: Send) -> None:
        """Find the request's space and provider, and have it meet its step."""
        token, _, below = scope["path"].removeprefix("/").partition("/")
        name, _, path = below.partition("/")
        space, provider = self._spaces.get(token), PROVIDERS.get(name)
        if space is None or provider is None:
            await _nowhere(send)
            return
        connection: Connection = scope["state"]["connection"]
        headers = [(key.decode(), value.decode("latin-1")) for key, value in scope["headers"]]
        request = Recorded(
            provider=name,
            method=scope["method"],
            path=f"/{path}",
            raw_path=scope["raw_path"].decode(),
            query=scope["query_string"].decode(),
            headers=headers,
            connection=connection.number,
            origin=f"{scope['scheme']}://{dict(headers).get('host', '')}",
        )
        step = space.next_step()
        exchange = Exchange(
            request=request,
            space=space,
            provider=provider,
            connection=connection,
            receive=receive,
            send=send,
        )
        try:
            whole = await exchange.read_body() if step.reads_body else True
            space.arrived(request, connection)
            if whole:
                await step.run(exchange)
        except Exception:
            # A test that scripts nonsense should read why, not a puzzling 500 alone.
            logging.getLogger("apiserver").exception("a step failed")
            raise
        finally:
            await exchange.close()


async def _nowhere(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    return listener
