"""Streams: what iterating over an answer gives, as it comes.

Rule 1: a stream that ends before its end, or brings what is not usable, raises
``StreamInterrupted``; that and every other error has the text so far in ``partial_text``.
Rule 2: its connection is let go at once when it ends, fails, is closed, or is collected.
Rule 3: it has the call's deadline, and until its first item that of the first token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from animica_hooks.errors import APIError, APIResponseError, StreamInterrupted
from animica_hooks.sdk.sse import Decoder

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import Answer, Headers
    from animica_hooks.sdk.reader import Reader
    from animica_hooks.sdk.sse import Event
    from animica_hooks.sdk.transports import AsyncIncoming, Incoming

C = TypeVar("C")


class _State(Generic[C]):
    """How far a stream has come. Apart from it, so that no stream refers to itself."""

    def __init__(
        self, answer: Answer, reader: Reader[C], *, begun_by: float | None, deadline: float | None
    ) -> None:
        self.answer = answer
        self.reader = reader
        self.limit = begun_by
        self.deadline = deadline
        self.decoder = Decoder()

    def last(self) -> C | None:
        """Return what the end of the body completes, and check that it is the stream's end.

        Raises:
            StreamInterrupted: it is not.
        """
        event = self.decoder.finish()
        item = None
        if event is not None:
            try:
                item = self.reader.take(event)
            except APIResponseError:
                raise StreamInterrupted("the stream ended within an event") from None
        self.reader.finish()
        return item

    def explained(self, error: APIError) -> APIError:
        """Return the error with what is known of the stream."""
        interrupted = type(error) is APIResponseError
        told = StreamInterrupted(error.message) if interrupted else error
        told.partial_text = self.reader.text
        told.request_id = told.request_id or self.answer.request_id
        told.headers = told.headers or self.answer.headers.without_cookies()
        return told


class _Facts(Generic[C]):
    """What sync and async streams tell of themselves."""

    _state: _State[C]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request_id or ''}>"

    @property
    def status_code(self) -> int:
        """The answer's HTTP status."""
        return self._state.answer.status

    @property
    def headers(self) -> Headers:
        """The answer's headers."""
        return self._state.answer.headers

    @property
    def request_id(self) -> str | None:
        """The API's id of the request."""
        return self._state.answer.request_id

    @property
    def response(self) -> Self:
        """This itself, by the name that the official clients have for what is below a stream."""
        return self

    @property
    def text(self) -> str:
        """The text so far."""
        return self._state.reader.text


def _run(state: _State[C], incoming: Incoming) -> Generator[C]:
    reader = state.reader
    feed, take = state.decoder.feed, reader.take
    event: Event
    try:
        while data := incoming.read_some(state.limit):
            for event in feed(data):
                item = take(event)
                if item is not None:
                    state.limit = state.deadline
                    yield item
                if reader.ended:
                    incoming.finish()
                    return
        last = state.last()
        if last is not None:
            yield last
    except APIError as error:
        # What the API said stays out of tracebacks: an error event may repeat what was sent.
        data = event = b""
        raise state.explained(error).with_traceback(None) from error.__cause__
    finally:
        incoming.close()


async def _run_async(state: _State[C], incoming: AsyncIncoming) -> AsyncGenerator[C]:
    reader = state.reader
    feed, take = state.decoder.feed, reader.take
    event: Event
    try:
        while data := await incoming.read_some(state.limit):
            for event in feed(data):
                item = take(event)
                if item is not None:
                    state.limit = state.deadline
                    yield item
                if reader.ended:
                    await incoming.finish()
                    return
        last = state.last()
        if last is not None:
            yield last
    except APIError as error:
        # What the API said stays out of tracebacks: an error event may repeat what was sent.
        data = event = b""
        raise state.explained(error).with_traceback(None) from error.__cause__
    finally:
        await incoming.aclose()


class Stream(_Facts[C]):
    """What an API streams: iterate over it; leave it early with ``close()`` or a ``with`` block."""

    def __init__(
        self,
        answer: Answer,
        incoming: Incoming,
        reader: Reader[C],
        *,
        begun_by: float | None,
        deadline: float | None,
    ) -> None:
        self._state = _State(answer, reader, begun_by=begun_by, deadline=deadline)
        self._incoming = incoming
        self._iterator = _run(self._state, incoming)

    def __iter__(self) -> Iterator[C]:
        return self._iterator

    def __next__(self) -> C:
        return next(self._iterator)

    def close(self) -> None:
        """Let go of the connection; nothing more comes.

        A thread that is reading the stream has ``StreamInterrupted`` raised.
        """
        if self._iterator.gi_running:  # type: ignore[attr-defined] # only typeshed lacks it
            self._incoming.interrupt()
            return
        self._iterator.close()
        # A generator that never began has no end to run.
        self._incoming.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(_Facts[C]):
    """What an API streams: ``async for`` over it; leave it early with ``close()``."""

    def __init__(
        self,
        answer: Answer,
        incoming: AsyncIncoming,
        reader: Reader[C],
        *,
        begun_by: float | None,
        deadline: float | None,
    ) -> None:
        self._state = _State(answer, reader, begun_by=begun_by, deadline=deadline)
        self._incoming = incoming
        self._iterator = _run_async(self._state, incoming)

    def __aiter__(self) -> AsyncIterator[C]:
        return self._iterator

    async def __anext__(self) -> C:
        return await anext(self._iterator)

    async def close(self) -> None:
        """Let go of the connection; nothing more comes.

        A task that is reading the stream has ``StreamInterrupted`` raised.
        """
        if not self._iterator.ag_running:  # type: ignore[attr-defined] # only typeshed lacks it
            await self._iterator.aclose()
        await self._incoming.aclose()

    async def aclose(self) -> None:
        """As ``close``, for ``contextlib.aclosing``."""
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def plain(stream: Stream[C]) -> Generator[C]:
    """Return a stream as a generator."""
    with stream:
        yield from stream


async def plain_async(stream: AsyncStream[C]) -> AsyncGenerator[C]:
    """Return a stream as an asynchronous generator."""
    async with stream:
        async for item in stream:
            yield item
