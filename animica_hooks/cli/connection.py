"""One connection: HTTP/1.1 by httptools, with limits on what comes before the app is asked.

Rule 1: a request's head is whole within a deadline (408) and a size (431), or the connection ends.
Rule 2: a connection over the cap is answered 503 with Retry-After at once, whoever is silent on
        the others.
Rule 3: every refusal reaches its client: what the client still sends is read for a moment, for
        closing a socket with unread input resets it and takes the answer along.
Rule 4: a request that is whole gets its own answer, whatever comes after it on its connection.
Rule 5: every request is framed by its own Content-Length or Transfer-Encoding, also one that asks
        for another protocol: nobody's body is ever taken for a request.
Rule 6: what is done per request is done in few calls. Deadlines are looked at by the server's
        tick (``overdue``) and set no timers; bytes are counted as they arrive, not by header.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from animica_hooks.cli.exchange import Exchange, Take
from animica_hooks.receiver.answers import Answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn.server import ServerState

MAX_CONNECTIONS = 1000
MAX_HEAD_BYTES = 64 * 1024
HEAD_DEADLINE_S = 10.0
KEEP_ALIVE_S = 15
GRACE_S = 5
RETRY_AFTER_S = 2
LINGER_S = 1.0
MAX_LINGERING = 100  # connections that are read from after their refusal, at once
HIGH_WATER_BYTES = 64 * 1024  # of a body that the app has not read yet


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


class Config(uvicorn.Config):
    """uvicorn's settings, and what its connections share.

    Attributes:
        take: what answers whole requests without a task, where the app can do that.
        default_lines: the headers of every answer.
        heads: of answers that were made with these headers, for connections that go on.
        lingering: connections that are closed and still read from.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, *, take: Take | None = None, proxy_headers: bool
    ) -> None:
        super().__init__(
            app,
            interface="asgi3",
            http=Connection,
            ws="none",
            access_log=False,
            server_header=False,
            proxy_headers=proxy_headers,
            # Of its own accord it would wait for ever. See ``Server.shutdown``.
            timeout_graceful_shutdown=limits.grace + 1,
            log_config=None,
            # Strangers cause its warnings; our own log is rate-limited.
            log_level="critical",
        )
        self.limits = limits
        self.take = take
        self.default_lines = b""
        self.heads: dict[Answer, bytes] = {}
        self.lingering: set[Connection] = set()


class _HeadTooLarge(Exception):
    """Makes the parser stop."""


class _Tunnel(Exception):
    """Makes the parser stop, for what a CONNECT is followed by is not HTTP."""


class Connection(asyncio.Protocol):
    """Parses requests, has the app answer them one after the other, and ends in time.

    Attributes:
        due: when the server's tick has to look at it, by the loop's clock.
        tasks: which the apps run in.
        writable: None, or what to wait for, for the client does not read its answer.
    """

    __slots__ = (
        "_app",
        "_app_state",
        "_carried",
        "_client",
        "_closing",
        "_connections",
        "_current",
        "_head_is_due",
        "_headers",
        "_in_head",
        "_last_read",
        "_limits",
        "_lingering_ends",
        "_loop",
        "_parser",
        "_plain_head",
        "_reading",
        "_reading_paused",
        "_received",
        "_refused",
        "_server",
        "_take",
        "_transport",
        "_url",
        "_waiting",
        "config",
        "due",
        "tasks",
        "writable",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.config = config
        self._limits = config.limits
        self._app = cast("ASGIApp", config.loaded_app)
        self._take = config.take
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._connections: set[Any] = server_state.connections
        self.tasks = server_state.tasks
        self.due = math.inf
        self.writable: asyncio.Event | None = None
        self._refused = False
        self._closing = False
        self._reading_paused = False
        self._lingering_ends: asyncio.TimerHandle | None = None
        self._reading: Exchange | None = None  # the last that arrived, or arrives
        self._current: Exchange | None = None  # the last that the app was asked about
        self._waiting: deque[Exchange] = deque()  # those between them
        self._in_head = True  # what comes next belongs to a request's head
        self._head_is_due = True  # and not just any sign of life
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._plain_head = b""  # of a request that asked for another protocol, to parse instead
        # Bytes since the parser was last done with a head, a piece of a body, or a request,
        self._received = 0
        self._last_read = 0
        # and of the read that ended the last request: some of it may be the next one's.
        self._carried = 0
        self._parser = httptools.HttpRequestParser(self)
        # What follows on a request that said `Connection: close` does not keep it from its answer.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server = get_local_addr(self._transport)
        self._client = get_remote_addr(self._transport)
        self._connections.add(self)
        if len(self._connections) > self._limits.connections:
            self._refuse(BUSY)
        else:
            self.due = self._loop.time() + self._limits.head_deadline

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._closing = True
        self._connections.discard(self)
        self._waiting.clear()
        if self._lingering_ends is not None:
            self._lingering_ends.cancel()
            self.config.lingering.discard(self)
        if self._current is not None:
            self._current.disconnect()
        self.resume_writing()
        del self._parser  # which refers to us

    def data_received(self, data: bytes) -> None:
        if self._refused or self._closing:
            return
        self._last_read = len(data)
        self._received += self._last_read
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            is_large = isinstance(error.__context__, _HeadTooLarge)
            self._refuse(HEAD_TOO_LARGE if is_large else MALFORMED)
        if self._received > self._limits.head_bytes:
            self._refuse(HEAD_TOO_LARGE)
        elif self._in_head and (self._received or self._url):
            self._expect_head()
        if self._waiting:
            if self._is_busy():
                self._pause_reading()
            else:
                self._start_next()

    def pause_writing(self) -> None:
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self.writable is not None:
            self.writable.set()
            self.writable = None

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Let a request wait for its turn."""
        if self._received + self._carried > self._limits.head_bytes:
            self._check_head()
        parser = self._parser
        if parser.should_upgrade():
            self._decline_upgrade()
            return
        path, query = _split(self._url)
        text = path.decode("ascii")
        version = parser.get_http_version()
        self._reading = Exchange(
            self,
            version,
            parser.get_method().decode("ascii"),
            unquote(text) if "%" in text else text,
            path,
            query,
            self._headers,
            version != "1.0" and parser.should_keep_alive(),
        )
        self._waiting.append(self._reading)
        self._in_head = self._head_is_due = False
        self._url = b""
        self._headers = []
        self._received = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body."""
        self._received = 0
        exchange = self._reading
        assert exchange is not None
        exchange.feed(body)
        if len(exchange.body) > HIGH_WATER_BYTES:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """Tell the app that the request is whole."""
        if self._plain_head:
            return
        self._received = 0
        self._carried = self._last_read
        self._in_head = True
        if self._headers:
            self._headers = []  # of trailers
        assert self._reading is not None
        self._reading.end()

    def scope(self) -> dict[str, Any]:
        """Return what is the same in the scope of each of its requests."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "root_path": "",
            "state": self._app_state.copy(),
        }

    def write(self, pieces: Sequence[bytes]) -> None:
        """Send bytes of an answer."""
        if self._closing:
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif pieces:
            self._transport.writelines(pieces)

    def resume_reading(self) -> None:
        """Read on, if that was paused."""
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        """Turn to the next request, or end."""
        if exchange.more_body or not exchange.keep_alive:
            # Who has not asked for a body would have to read it to its end, with no deadline.
            self.close()
        elif self._waiting:
            self._start_next()
        else:
            limits = self._limits
            allowed = limits.head_deadline if self._head_is_due else limits.keep_alive
            self.due = self._loop.time() + allowed
        if self._reading_paused:
            self.resume_reading()

    def overdue(self) -> None:
        """Do what is due."""
        self.due = math.inf
        if self._current is not None and not self._current.complete:
            self._current.send_head()
        elif self._head_is_due:
            self._refuse(HEAD_TOO_LATE)
        else:
            self.close()

    def shutdown(self) -> None:
        """End after what is under way."""
        last = self._last()
        if last is None or last.complete:
            self.close()
        else:
            last.keep_alive = False

    def hang_up(self) -> None:
        """End what is under way at the end of the grace, but for what the app works on."""
        if self._transport.get_write_buffer_size():
            self.abort()  # the client does not read
        else:
            self._refuse(BUSY)

    def close(self) -> None:
        """End by rule 3."""
        if self._closing:
            return
        self._closing = True
        self.due = math.inf
        unread = self._refused or (self._reading is not None and self._reading.more_body)
        lingering = self.config.lingering
        if not unread or len(lingering) >= MAX_LINGERING or self._transport.is_closing():
            self._transport.close()
            return
        # Not in anybody's place; what is still to be sent to a client keeps its own.
        self._connections.discard(self)
        lingering.add(self)
        self._transport.write_eof()
        self.resume_reading()
        self._lingering_ends = self._loop.call_later(LINGER_S, self._transport.abort)

    def abort(self) -> None:
        """End at once, whatever has not left."""
        self._transport.abort()

    def _feed(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
            else:
                return
            head, self._plain_head = self._plain_head, b""
            self._parser.feed_data(head)

    def _decline_upgrade(self) -> None:
        """Have a request parsed again that asks for another protocol, as one that does not.

        To the parser it ends with its head, and its body would be taken for the next request.
        """
        method = self._parser.get_method()
        if method == b"CONNECT":
            raise _Tunnel
        lines = [b"%b %b HTTP/%b" % (method, self._url, self._parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self._headers if header[0] != b"upgrade"]
        self._plain_head = b"\r\n".join([*lines, b"", b""])
        self._url = b""
        self._headers = []

    def _is_busy(self) -> bool:
        return self._current is not None and not self._current.complete

    def _last(self) -> Exchange | None:
        return self._waiting[-1] if self._waiting else self._current

    def _start_next(self) -> None:
        self.due = math.inf
        self._current = self._waiting.popleft()
        exchange = self._current
        # A client that does not read its answers is waited for in a task.
        is_whole = not exchange.more_body and self.writable is None
        if not (is_whole and self._take is not None and exchange.take(self._take)):
            exchange.task = self._loop.create_task(exchange.run(self._app))
            self.tasks.add(exchange.task)

    def _expect_head(self) -> None:
        """Begin the deadline of a head, if it is the next thing to come."""
        if not self._head_is_due:
            self._head_is_due = True
            if not self._waiting and not self._is_busy():
                self.due = self._loop.time() + self._limits.head_deadline

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _check_head(self) -> None:
        fields = sum(len(name) + len(value) + 4 for name, value in self._headers)
        if len(self._url) + fields > self._limits.head_bytes:
            raise _HeadTooLarge

    def _refuse(self, answer: bytes) -> None:
        """Answer instead of the app, and end the connection."""
        if self._refused or self._closing or self._transport.is_closing():
            return
        self._refused = True
        if self._waiting and self._waiting[-1].more_body:
            self._waiting.pop()
        last = self._last()
        if last is not None and not last.complete:
            if not last.more_body:
                last.keep_alive = False  # closes after its own answer
                return
            last.disconnect()
            answer = b"" if last.begun else answer
        self._transport.write(answer)
        self.close()


def _split(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a request's target."""
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    parsed = httptools.parse_url(target)
    return parsed.path, parsed.query or b""
