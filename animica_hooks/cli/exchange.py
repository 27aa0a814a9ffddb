"""One request and its answer, as ASGI has them.

Rule 1: the answer's head leaves together with the first of its body, in one write; an app that
        takes its time until then has it sent by itself (``send_head``).
Rule 2: as long as nothing of an answer has left, a failure of the app becomes a 500.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE

from animica_hooks.receiver.answers import Answer

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Send

    from animica_hooks.cli.connection import Connection

_logger = logging.getLogger("uvicorn.error")
_FAILED = Answer(
    status=500,
    code="",
    headers=(
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"21"),
        (b"connection", b"close"),
    ),
    body=b"Internal Server Error",
)


Headers: TypeAlias = list[tuple[bytes, bytes]]
Take: TypeAlias = Callable[[str, str, Headers, bytes, Callable[[Answer], None]], bool]


class Exchange:
    """What an app is called with, and what has become of it so far.

    Attributes:
        task: which the app runs in.
        body: received and not read yet. The receiver looks at this and at ``more_body``, which
            uvicorn's requests have too.
        keep_alive: the connection goes on after the answer.
        disconnected: nobody is there to read the answer.
        begun: something of the answer has left.
        complete: all of the answer has left.
    """

    __slots__ = (
        "_begun_waiting",
        "_changed",
        "_chunked",
        "_connection",
        "_due",
        "_head",
        "_headers",
        "_method",
        "_news",
        "_path",
        "_query",
        "_raw_path",
        "_started",
        "_version",
        "begun",
        "body",
        "complete",
        "disconnected",
        "keep_alive",
        "more_body",
        "task",
    )

    task: asyncio.Task[None]

    def __init__(
        self,
        connection: Connection,
        version: str,
        method: str,
        path: str,
        raw_path: bytes,
        query: bytes,
        headers: Headers,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._version = version
        self._method = method
        self._path = path
        self._raw_path = raw_path
        self._query = query
        self._headers = headers
        self.keep_alive = keep_alive
        self.disconnected = False
        self.body: bytes | bytearray = b""
        self.more_body = True
        self._news = False  # that ``receive`` has not told
        self._changed: asyncio.Event | None = None
        self._begun_waiting = False
        self.begun = False
        self.complete = False
        self._started = False
        self._head: bytes | None = None  # not sent yet
        self._chunked: bool | None = None
        self._due = 0  # bytes of the answer's body that are to come

    def take(self, take: Take) -> bool:
        """Have an app of ours answer, which needs no task to do that; False where it does."""
        try:
            body = bytes(self.body)
            taken = take(self._method, self._path, self._headers, body, self.answer)
        except Exception:
            _logger.exception("Exception in ASGI application\n")
            asyncio.get_running_loop().call_soon(self._fail)
            return True
        if taken:
            self.body = b""
        return taken

    async def run(self, app: Callable[[Scope, Receive, Send], Awaitable[object]]) -> None:
        """Have the app answer; whatever it does, there is an end."""
        try:
            returned = await app(self._scope(), self.receive, self.send)
        except BaseException:  # a request that was cancelled has to be answered too
            _logger.exception("Exception in ASGI application\n")
            self._fail()
        else:
            if returned is not None:
                _logger.error("ASGI callable should return None, but returned '%s'.", returned)
                self._connection.close()
            elif not self.complete and not self.disconnected:
                what = "completing" if self._started else "starting"
                _logger.error("ASGI callable returned without %s response.", what)
                self._fail()
        finally:
            self._connection.tasks.discard(self.task)

    async def receive(self) -> Message:
        """As in ASGI."""
        while not (self._news or self.disconnected or self.complete):
            await self._wait()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        self._news = False
        body = bytes(self.body)
        self.body = b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """As in ASGI."""
        if self._connection.writable is not None and not self.disconnected:
            await self._connection.writable.wait()
        if self.disconnected:
            return
        type = message["type"]
        if self.complete:
            raise RuntimeError(f"Unexpected ASGI message {type!r}: the response is complete.")
        expected = "http.response.body" if self._started else "http.response.start"
        if type != expected:
            raise RuntimeError(f"Expected ASGI message {expected!r}, but got {type!r}.")
        if self._started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._head = self._head_of(message["status"], message.get("headers", ()))
            self._started = True
            self._connection.due = 0  # unless the body follows at once, the next tick sends it

    def answer(self, answer: Answer) -> None:
        """Send a whole answer, in place of what has not left."""
        if self.disconnected:
            return
        heads = self._connection.config.heads
        head = heads.get(answer) if self.keep_alive else None
        if head is None:
            head = self._head_of(answer.status, answer.headers)
            if self.keep_alive:
                heads[answer] = head
        self._finish((head, answer.body) if answer.body and self._method != "HEAD" else (head,))

    def send_head(self) -> None:
        """Send the head by itself, if it waits for the body."""
        if self._head is not None:
            self._connection.write((self._head,))
            self._head = None
            self.begun = True

    def feed(self, body: bytes) -> None:
        """Take a piece of the request's body."""
        self._news = True
        if not self.body:
            self.body = body
        elif isinstance(self.body, bytes):
            self.body = bytearray(self.body + body)
        else:
            self.body += body
        if self._changed is not None:
            self._tell()

    def end(self) -> None:
        """The request is whole."""
        self._news = True
        self.more_body = False
        if self._changed is not None:
            self._tell()

    def disconnect(self) -> None:
        """The client is gone, or no longer listened to."""
        self.disconnected = not self.complete
        self._tell()

    def _scope(self) -> Scope:
        scope = self._connection.scope()
        scope["http_version"] = self._version
        scope["method"] = self._method
        scope["path"] = self._path
        scope["raw_path"] = self._raw_path
        scope["query_string"] = self._query
        scope["headers"] = self._headers
        return scope

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _wait(self) -> None:
        if self.more_body and not (self._begun_waiting or self._started):
            self._begun_waiting = True
            if any(
                name == b"expect" and value.lower() == b"100-continue"
                for name, value in self._headers
            ):
                self._connection.write((b"HTTP/1.1 100 Continue\r\n\r\n",))
        self._connection.resume_reading()
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        lines = [STATUS_LINE[status], self._connection.config.default_lines]
        closes, self._chunked, self._due = False, None, 0
        for given, value in headers:
            if HEADER_RE.search(given):
                raise RuntimeError("Invalid HTTP header name.")
            if HEADER_VALUE_RE.search(value):
                raise RuntimeError("Invalid HTTP header value.")
            name = given.lower()
            if name == b"content-length" and self._chunked is None:
                self._due = int(value)
                self._chunked = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self._due = 0
                self._chunked = True
            elif name == b"connection":
                closes |= b"close" in [token.strip() for token in value.lower().split(b",")]
            lines += (name, b": ", value, b"\r\n")
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self._chunked is None and status not in (204, 304) and self._method != "HEAD":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _send_body(self, body: bytes, more: bool) -> None:
        pieces: tuple[bytes, ...] = (body,) if body else ()
        if self._method == "HEAD":
            pieces = ()
        elif self._chunked:
            if body:
                pieces = (b"%x\r\n" % len(body), body, b"\r\n")
            if not more:
                pieces += (b"0\r\n\r\n",)
        else:
            self._due -= len(body)
            if self._due < 0:
                raise RuntimeError("Response content longer than Content-Length")
            if self._due and not more:
                raise RuntimeError("Response content shorter than Content-Length")
        if self._head is not None:
            pieces = (self._head, *pieces)
            self._head = None
            self.begun = True
        if more:
            self._connection.write(pieces)
        else:
            self._finish(pieces)

    def _finish(self, pieces: tuple[bytes, ...]) -> None:
        """Send the last of the answer."""
        self._head = None
        self._connection.write(pieces)
        self.begun = self.complete = True
        self._tell()
        self._connection.answered(self)

    def _fail(self) -> None:
        if self.begun or self.complete:
            self._connection.close()
        else:
            self.answer(_FAILED)
