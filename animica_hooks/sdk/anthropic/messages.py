"""``client.messages``: typed answers, streams, the ``stream()`` helper, and counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from animica_hooks.sdk.anthropic.endpoints import COUNT_TOKENS, MESSAGES
from animica_hooks.sdk.resource import AsyncResource, Resource

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import RawResponse
    from animica_hooks.sdk.anthropic.accumulate import AsyncMessageStream, MessageStream
    from animica_hooks.sdk.stream import AsyncStream, Stream
    from animica_hooks.sdk.types.anthropic import Message, MessageEvent, MessageTokensCount
    from animica_hooks.sdk.types.anthropic_params import (
        MetadataParam,
        System,
        ThinkingParam,
        ToolChoiceParam,
        Tools,
        Turns,
    )


def as_sent(params: dict[str, Any]) -> dict[str, Any]:
    """Return a request's parameters with the blocks of answers as the API sent them.

    Blocks that this package does not know, and fields such as signatures, must come back whole.
    """
    turns = params.get("messages")
    if isinstance(turns, Iterable) and not isinstance(turns, str | bytes | Mapping):
        params["messages"] = [_turn(turn) for turn in turns]
    return params


def _turn(turn: Any) -> Any:
    content = turn.get("content") if isinstance(turn, Mapping) else None
    if content is None or isinstance(content, str | Mapping) or not isinstance(content, Iterable):
        return turn
    return {**turn, "content": [_block(block) for block in content]}


def _block(block: Any) -> Any:
    if isinstance(block, Mapping):
        return block
    from animica_hooks.sdk import model

    return model.as_sent(block)


class Messages(Resource):
    """What the model says next in a conversation."""

    __slots__ = ()

    @overload
    def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        stream: Literal[False] | None = None,
        system: System = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        stop_sequences: Iterable[str] | None = None,
        tools: Tools = None,
        tool_choice: ToolChoiceParam | None = None,
        thinking: ThinkingParam | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> Message: ...

    @overload
    def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        stream: Literal[True],
        system: System = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        stop_sequences: Iterable[str] | None = None,
        tools: Tools = None,
        tool_choice: ToolChoiceParam | None = None,
        thinking: ThinkingParam | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> Stream[MessageEvent]: ...

    @overload
    def create(
        self, *, model: str, max_tokens: int, messages: Turns, stream: bool | None, **params: Any
    ) -> Message | Stream[MessageEvent]: ...

    def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> Message | Stream[MessageEvent]:
        """Return the answer, or with ``stream=True`` its events as they come.

        Raises:
            APIError: there is none; see ``animica_hooks.errors``.
        """
        if stream:
            return self._client._stream(MESSAGES, as_sent(params))
        return self._client._send(MESSAGES, as_sent(params))

    def stream(
        self, *, model: str, max_tokens: int, messages: Turns, **params: Any
    ) -> MessageStream:
        """Return a stream that adds up: ``with`` it, iterate, then ask for the message.

        The request is sent when the block begins.
        """
        from animica_hooks.sdk.anthropic.accumulate import MessageStream

        asked = {"model": model, "max_tokens": max_tokens, "messages": messages, **params}
        return MessageStream(self._client, as_sent(asked))

    def count_tokens(self, *, model: str, messages: Turns, **params: Any) -> MessageTokensCount:
        """Return how many tokens these messages, and ``system`` and ``tools``, would take.

        Raises:
            APIError: the API did not say; see ``animica_hooks.errors``.
        """
        asked = {"model": model, "messages": messages, **params}
        return self._client._send(COUNT_TOKENS, as_sent(asked))

    @property
    def with_raw_response(self) -> RawMessages:
        """The same, with status and headers."""
        return RawMessages(self._client)


class RawMessages(Resource):
    """``Messages`` with status and headers."""

    __slots__ = ()

    def create(self, **params: Any) -> RawResponse[Message]:
        """As ``Messages.create``, without streams: these have status and headers anyway."""
        return self._client._raw(MESSAGES, as_sent(params))

    def count_tokens(self, **params: Any) -> RawResponse[MessageTokensCount]:
        """As ``Messages.count_tokens``."""
        return self._client._raw(COUNT_TOKENS, as_sent(params))


class AsyncMessages(AsyncResource):
    """What the model says next in a conversation."""

    __slots__ = ()

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        stream: Literal[False] | None = None,
        system: System = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        stop_sequences: Iterable[str] | None = None,
        tools: Tools = None,
        tool_choice: ToolChoiceParam | None = None,
        thinking: ThinkingParam | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> Message: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        stream: Literal[True],
        system: System = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        stop_sequences: Iterable[str] | None = None,
        tools: Tools = None,
        tool_choice: ToolChoiceParam | None = None,
        thinking: ThinkingParam | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> AsyncStream[MessageEvent]: ...

    @overload
    async def create(
        self, *, model: str, max_tokens: int, messages: Turns, stream: bool | None, **params: Any
    ) -> Message | AsyncStream[MessageEvent]: ...

    async def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> Message | AsyncStream[MessageEvent]:
        """As ``Messages.create``."""
        if stream:
            return await self._client._stream(MESSAGES, as_sent(params))
        return await self._client._send(MESSAGES, as_sent(params))

    def stream(
        self, *, model: str, max_tokens: int, messages: Turns, **params: Any
    ) -> AsyncMessageStream:
        """As ``Messages.stream``, for ``async with``."""
        from animica_hooks.sdk.anthropic.accumulate import AsyncMessageStream

        asked = {"model": model, "max_tokens": max_tokens, "messages": messages, **params}
        return AsyncMessageStream(self._client, as_sent(asked))

    async def count_tokens(
        self, *, model: str, messages: Turns, **params: Any
    ) -> MessageTokensCount:
        """As ``Messages.count_tokens``."""
        asked = {"model": model, "messages": messages, **params}
        return await self._client._send(COUNT_TOKENS, as_sent(asked))

    @property
    def with_raw_response(self) -> AsyncRawMessages:
        """The same, with status and headers."""
        return AsyncRawMessages(self._client)


class AsyncRawMessages(AsyncResource):
    """``AsyncMessages`` with status and headers."""

    __slots__ = ()

    async def create(self, **params: Any) -> RawResponse[Message]:
        """As ``RawMessages.create``."""
        return await self._client._raw(MESSAGES, as_sent(params))

    async def count_tokens(self, **params: Any) -> RawResponse[MessageTokensCount]:
        """As ``Messages.count_tokens``."""
        return await self._client._raw(COUNT_TOKENS, as_sent(params))
