"""Streams that add up: the items as they come, and the whole that they add up to."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from animica_hooks.errors import APIRequestError
from animica_hooks.sdk.answer import Answer
from animica_hooks.sdk.endpoint import attach_answer
from animica_hooks.sdk.stream import AsyncStream, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from animica_hooks.sdk.async_client import AsyncClient
    from animica_hooks.sdk.client import Client
    from animica_hooks.sdk.endpoint import Endpoint

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound="Stream[Any] | AsyncStream[Any]")


class Accumulator(Protocol[T_co, C_contra]):
    """Adds the items of a stream up, without I/O."""

    def add(self, item: C_contra, /) -> str:
        """Add an item; return the text that it adds."""

    def whole(self) -> T_co:
        """Return what has come so far, as if it had not been streamed."""

    def text(self) -> str:
        """Return the text so far."""


class _Accumulated(Generic[S, T, C]):
    """What sync and async streams that add up have in common."""

    _block: ClassVar[str]

    def __init__(self, accumulator: Accumulator[T, C]) -> None:
        self._sum = accumulator
        self._stream: S | None = None

    def _begun(self) -> S:
        if self._stream is None:
            raise APIRequestError(
                f"the stream begins with its block: {self._block} ....stream(...) as s:"
            )
        return self._stream

    def _whole(self) -> T:
        whole, stream = self._sum.whole(), self._begun()
        attach_answer(whole, Answer(stream.status_code, stream.headers))
        return whole

    @property
    def response(self) -> S:
        """The stream below: its status, headers and ``close()``."""
        return self._begun()

    @property
    def request_id(self) -> str | None:
        """The API's id of the request."""
        return self._begun().request_id


class AccumulatedStream(_Accumulated[Stream[C], T, C], Generic[T, C]):
    """A stream that adds up. Iterating gives its items; ``text_stream`` gives their text.

    The request is sent when the block begins.
    """

    _block = "with"

    def __init__(
        self,
        client: Client,
        endpoint: Endpoint[T, C],
        params: dict[str, Any],
        accumulator: Accumulator[T, C],
    ) -> None:
        super().__init__(accumulator)
        self._client = client
        self._endpoint = endpoint
        self._params = params

    def __enter__(self) -> Self:
        self._stream = self._client._stream(self._endpoint, self._params)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; nothing more comes."""
        if self._stream is not None:
            self._stream.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> C:
        item = next(self._begun())
        self._sum.add(item)
        return item

    @property
    def text_stream(self) -> Iterator[str]:
        """The text, as it comes; of several answers, the first one's."""
        for item in self._begun():
            if text := self._sum.add(item):
                yield text

    def until_done(self) -> None:
        """Read what is left.

        Raises:
            APIError: the stream broke off.
        """
        for _ in self:
            pass

    def get_final_text(self) -> str:
        """Read what is left and return the text; of several answers, the first one's.

        Raises:
            APIError: the stream broke off.
        """
        self.until_done()
        return self._sum.text()


class AsyncAccumulatedStream(_Accumulated[AsyncStream[C], T, C], Generic[T, C]):
    """As ``AccumulatedStream``, for coroutines."""

    _block = "async with"

    def __init__(
        self,
        client: AsyncClient,
        endpoint: Endpoint[T, C],
        params: dict[str, Any],
        accumulator: Accumulator[T, C],
    ) -> None:
        super().__init__(accumulator)
        self._client = client
        self._endpoint = endpoint
        self._params = params

    async def __aenter__(self) -> Self:
        self._stream = await self._client._stream(self._endpoint, self._params)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection; nothing more comes."""
        if self._stream is not None:
            await self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> C:
        item = await anext(self._begun())
        self._sum.add(item)
        return item

    @property
    async def text_stream(self) -> AsyncIterator[str]:
        """As ``AccumulatedStream.text_stream``."""
        async for item in self._begun():
            if text := self._sum.add(item):
                yield text

    async def until_done(self) -> None:
        """As ``AccumulatedStream.until_done``."""
        async for _ in self:
            pass

    async def get_final_text(self) -> str:
        """As ``AccumulatedStream.get_final_text``."""
        await self.until_done()
        return self._sum.text()
