"""``client.chat.completions``: typed answers, streams, and the ``stream()`` helper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from animica_hooks.sdk.openai.endpoints import CHAT
from animica_hooks.sdk.resource import AsyncResource, Resource

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import RawResponse
    from animica_hooks.sdk.openai.accumulate import AsyncChatStream, ChatStream
    from animica_hooks.sdk.stream import AsyncStream, Stream
    from animica_hooks.sdk.types.openai import ChatCompletion, ChatCompletionChunk, Message

Messages: TypeAlias = "Iterable[Mapping[str, object] | Message]"
Stop: TypeAlias = "str | Iterable[str] | None"


def as_sent(params: dict[str, Any]) -> dict[str, Any]:
    """Return a request's parameters with the messages of answers as the API sent them."""
    turns = params.get("messages")
    if isinstance(turns, Iterable) and not isinstance(turns, str | bytes | Mapping):
        params["messages"] = [_turn(turn) for turn in turns]
    return params


def _turn(turn: Any) -> Any:
    if isinstance(turn, Mapping) and "tool_calls" not in turn:
        return turn
    from animica_hooks.sdk import model

    if not isinstance(turn, Mapping):
        return model.as_sent(turn)
    return {**turn, "tool_calls": model.as_sent(turn["tool_calls"])}


class Chat(Resource):
    """Chat."""

    __slots__ = ()

    @property
    def completions(self) -> ChatCompletions:
        """What the model says next in a chat."""
        return ChatCompletions(self._client)


class AsyncChat(AsyncResource):
    """Chat."""

    __slots__ = ()

    @property
    def completions(self) -> AsyncChatCompletions:
        """What the model says next in a chat."""
        return AsyncChatCompletions(self._client)


class ChatCompletions(Resource):
    """What the model says next in a chat."""

    __slots__ = ()

    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> ChatCompletion: ...

    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> Stream[ChatCompletionChunk]: ...

    @overload
    def create(
        self, *, model: str, messages: Messages, stream: bool | None, **params: Any
    ) -> ChatCompletion | Stream[ChatCompletionChunk]: ...

    def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> ChatCompletion | Stream[ChatCompletionChunk]:
        """Return the answer, or with ``stream=True`` its chunks as they come.

        Raises:
            APIError: there is none; see ``animica_hooks.errors``.
        """
        if stream:
            return self._client._stream(CHAT, as_sent(params))
        return self._client._send(CHAT, as_sent(params))

    def stream(self, *, model: str, messages: Messages, **params: Any) -> ChatStream:
        """Return a stream that adds up: ``with`` it, iterate, then ask for the whole.

        The request is sent when the block begins. Usage is asked for, unless ``stream_options``
        says otherwise.
        """
        from animica_hooks.sdk.openai.accumulate import ChatStream

        asked = {"model": model, "messages": messages, **params}
        return ChatStream(self._client, as_sent(asked))

    @property
    def with_raw_response(self) -> RawChatCompletions:
        """The same, with status and headers."""
        return RawChatCompletions(self._client)


class RawChatCompletions(Resource):
    """``ChatCompletions`` with status and headers."""

    __slots__ = ()

    def create(self, **params: Any) -> RawResponse[ChatCompletion]:
        """As ``ChatCompletions.create``, without streams: these have status and headers anyway."""
        return self._client._raw(CHAT, as_sent(params))


class AsyncChatCompletions(AsyncResource):
    """What the model says next in a chat."""

    __slots__ = ()

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> AsyncStream[ChatCompletionChunk]: ...

    @overload
    async def create(
        self, *, model: str, messages: Messages, stream: bool | None, **params: Any
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]: ...

    async def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]:
        """As ``ChatCompletions.create``."""
        if stream:
            return await self._client._stream(CHAT, as_sent(params))
        return await self._client._send(CHAT, as_sent(params))

    def stream(self, *, model: str, messages: Messages, **params: Any) -> AsyncChatStream:
        """As ``ChatCompletions.stream``, for ``async with``."""
        from animica_hooks.sdk.openai.accumulate import AsyncChatStream

        asked = {"model": model, "messages": messages, **params}
        return AsyncChatStream(self._client, as_sent(asked))

    @property
    def with_raw_response(self) -> AsyncRawChatCompletions:
        """The same, with status and headers."""
        return AsyncRawChatCompletions(self._client)


class AsyncRawChatCompletions(AsyncResource):
    """``AsyncChatCompletions`` with status and headers."""

    __slots__ = ()

    async def create(self, **params: Any) -> RawResponse[ChatCompletion]:
        """As ``RawChatCompletions.create``."""
        return await self._client._raw(CHAT, as_sent(params))
