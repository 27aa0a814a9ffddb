"""How the server misbehaves: what a request meets instead of a plain answer.

A step is made by a function of this module and given to ``Space.script``. Unless it says otherwise
the request is still carried out (and its answer stored under its idempotency key): what goes wrong
is the delivery. `after` counts the parts of an answer that are delivered first: events of a stream.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Literal

from apiserver.answer import JSON, Answer, Event, Refusal, encode

if TYPE_CHECKING:
    from apiserver.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one request, once its body has been read (or before, if it never is)."""

    run: Callable[[Exchange], Awaitable[None]]
    reads_body: bool = True


class Hold:
    """A place where the server waits until the test releases it, or the client leaves."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        self._wakers: list[Callable[[], object]] = []

    def release(self) -> None:
        """Let the server go on."""
        self.released.set()
        for wake in self._wakers:
            wake()

    def on_release(self, wake: Callable[[], object]) -> None:
        """Have a function called when released; at once if it has been."""
        self._wakers.append(wake)
        if self.released.is_set():
            wake()


def normal() -> Step:
    """Answer as the provider does."""

    async def run(exchange: Exchange) -> None:
        await exchange.deliver(exchange.answer())

    return Step(run)


def error(
    status: int,
    message: str = "It failed as the test asked.",
    *,
    type: str | None = None,
    code: str | int | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Step:
    """Answer an error in the provider's shape; the request is not carried out."""
    extra = tuple((headers or {}).items())

    async def run(exchange: Exchange) -> None:
        refusal = Refusal(status, message, type=type, code=code, param=param, headers=extra)
        await exchange.deliver(exchange.refused(refusal))

    return Step(run)


RetryAfter = Literal["seconds", "milliseconds", "date", "past date", "negative", "huge", "junk"]


def retry_after(form: RetryAfter, seconds: float) -> dict[str, str]:
    """Return the header that asks to wait, in one of its forms.

    RFC 9110, section 10.2.3 has whole seconds and dates; retry-after-ms is OpenAI's and Azure's.
    """
    return {
        "seconds": {"retry-after": f"{seconds:g}"},
        "milliseconds": {"retry-after-ms": f"{seconds * 1000:g}"},
        "date": {"retry-after": formatdate(time.time() + seconds, usegmt=True)},
        "past date": {"retry-after": formatdate(time.time() - 3600, usegmt=True)},
        "negative": {"retry-after": "-1"},
        "huge": {"retry-after": "1e9"},
        "junk": {"retry-after": "soon"},
    }[form]


def reply(
    body: bytes | str | dict[str, Any] | list[Any] | None,
    *,
    status: int = 200,
    content_type: str | None = JSON,
    headers: dict[str, str] | None = None,
) -> Step:
    """Answer this instead: bytes and texts as they are, other values as JSON."""
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
    kind = (("content-type", content_type),) if content_type is not None else ()

    async def run(exchange: Exchange) -> None:
        exchange.answer()
        content = encode(body) if data is None else data
        answer = Answer(status, (*exchange.headers(), *kind), body=content)
        await exchange.deliver(answer.with_headers(*(headers or {}).items()))

    return Step(run)


def edited(change: Callable[[dict[str, Any]], Any]) -> Step:
    """Answer as the provider does, after a function has changed the JSON in place."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        payload = json.loads(answer.body)
        change(payload)
        await exchange.deliver(replace(answer, body=encode(payload)))

    return Step(run)


def edited_events(change: Callable[[list[Event]], list[Event]]) -> Step:
    """Stream what a function makes of the stream's events."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        events = change(list(answer.events or ()))
        await exchange.deliver(replace(answer, events=tuple(events)))

    return Step(run)


def streamed(*parts: bytes | str, content_type: str = "text/event-stream") -> Step:
    """Stream these parts as they are: comments, other line ends, what is no event at all."""
    data = [part.encode() if isinstance(part, str) else part for part in parts]

    async def run(exchange: Exchange) -> None:
        exchange.answer()
        await exchange.start(200, (*exchange.headers(), ("content-type", content_type)))
        for part in data:
            await exchange.write(part)
        await exchange.finish()

    return Step(run)


def rechunked(size: int) -> Step:
    """Answer in chunks of this many bytes, wherever that cuts lines and characters."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        body = b"".join(answer.parts)
        await exchange.start(answer.status, answer.headers)
        for begin in range(0, len(body), size):
            await exchange.write(body[begin : begin + size])
        await exchange.finish()

    return Step(run)


def compressed() -> Step:
    """Answer with gzip to those who accept it, a stream flushed after each event."""

    async def run(exchange: Exchange) -> None:
        if "gzip" not in exchange.request.header("accept-encoding", ""):
            return await exchange.deliver(exchange.answer())
        answer = exchange.answer().with_headers(("content-encoding", "gzip"))
        if answer.events is None:
            return await exchange.deliver(replace(answer, body=gzip.compress(answer.body)))
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        await exchange.start(answer.status, answer.headers)
        for part in answer.parts:
            await exchange.write(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH))
        await exchange.write(packer.flush())
        return await exchange.finish()

    return Step(run)


def paced(seconds: float) -> Step:
    """Answer with a pause before each part."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        await exchange.start(answer.status, exchange.sized(answer))
        for part in answer.parts:
            await exchange.pause(seconds)
            await exchange.write(part)
        await exchange.finish()

    return Step(run)


def held(hold: Hold, *, after: int | None = None) -> Step:
    """Wait at a hold: before the headers, or after some parts of the body."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        if after is None:
            await exchange.wait_at(hold)
            return await exchange.deliver(answer)
        await exchange.start(answer.status, exchange.sized(answer))
        for index, part in enumerate(answer.parts):
            if index == after:
                await exchange.wait_at(hold)
            await exchange.write(part)
        if after >= len(answer.parts):
            await exchange.wait_at(hold)
        return await exchange.finish()

    return Step(run)


def stalled_upload(hold: Hold) -> Step:
    """Do not read the request's body before a hold is released; then answer to what it was."""

    async def run(exchange: Exchange) -> None:
        await exchange.wait_at(hold, reading=False)
        if await exchange.read_body():
            await exchange.deliver(exchange.answer())

    return Step(run, reads_body=False)


def cut(after: int) -> Step:
    """End a stream in good order after some events: no finish reason, no end of message."""
    return edited_events(lambda events: events[:after])


def failing(
    after: int,
    status: int = 500,
    message: str = "It failed as the test asked.",
    *,
    type: str | None = None,
    code: str | int | None = None,
) -> Step:
    """End a stream with the provider's error event, that of a status, after some events."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        refusal = Refusal(status, message, type=type, code=code)
        events = (*(answer.events or ())[:after], exchange.error_event(refusal))
        await exchange.deliver(replace(answer, events=events))

    return Step(run)


def truncated(keep: float = 0.5) -> Step:
    """Promise the whole body in Content-Length, send only this share, and close."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        body = b"".join(answer.parts)
        length = ("content-length", str(len(body)))
        await exchange.start(answer.status, answer.with_headers(length).headers)
        await exchange.write(body[: int(len(body) * keep)])
        await exchange.hang_up()

    return Step(run)


def broken(after: int) -> Step:
    """Close the connection after some parts, in the middle of a chunked body."""

    async def run(exchange: Exchange) -> None:
        await exchange.deliver_some(exchange.answer(), after)
        await exchange.hang_up()

    return Step(run)


def reset(after: int | None = None) -> Step:
    """Reset the connection (RST): before the headers, or after some parts of a chunked body."""

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        if after is not None:
            await exchange.deliver_some(answer, after)
        await exchange.reset()

    return Step(run)


def hung_up() -> Step:
    """Close the connection without a word."""

    async def run(exchange: Exchange) -> None:
        exchange.answer()
        await exchange.hang_up()

    return Step(run)


def redirected(status: int, to: str) -> Step:
    """Redirect to a URL; a path alone stays at this origin. The request is not carried out."""

    async def run(exchange: Exchange) -> None:
        headers = (*exchange.headers(), ("location", to), ("content-type", "text/plain"))
        await exchange.deliver(Answer(status, headers, body=b"It is elsewhere."))

    return Step(run)


def informed(*statuses: int) -> Step:
    """Send informational answers first that nobody asked for: 100, 102, 103."""

    async def run(exchange: Exchange) -> None:
        for status in statuses:
            link = b"link: </style.css>; rel=preload\r\n" if status == 103 else b""
            exchange.raw(b"HTTP/1.1 %d Information\r\n%s\r\n" % (status, link))
        await exchange.deliver(exchange.answer())

    return Step(run)


def oddly_chunked() -> Step:
    """Answer in chunks with extensions, upper-case and zero-padded sizes, and a trailer.

    All that RFC 9112, section 7.1, allows.
    """

    async def run(exchange: Exchange) -> None:
        answer = exchange.answer()
        head = [b"HTTP/1.1 %d OK" % answer.status]
        head += [f"{name}: {value}".encode() for name, value in answer.headers]
        head += [b"transfer-encoding: chunked", b"connection: close", b"", b""]
        exchange.raw(b"\r\n".join(head))
        for part in answer.parts:
            exchange.raw(b'%04X;note="a;b"\r\n%s\r\n' % (len(part), part))
        exchange.raw(b"0;last\r\nx-trailer: 1\r\n\r\n")
        await exchange.hang_up()

    return Step(run)


def raw(data: bytes) -> Step:
    """Answer these bytes, be they HTTP or not, and close."""

    async def run(exchange: Exchange) -> None:
        exchange.answer()
        exchange.raw(data)
        await exchange.hang_up()

    return Step(run)
