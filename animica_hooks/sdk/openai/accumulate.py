"""``chat.completions.stream()``: chunks as they come, and the whole that they add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from animica_hooks.sdk.accumulate import AccumulatedStream, AsyncAccumulatedStream
from animica_hooks.sdk.model import keep_unknown
from animica_hooks.sdk.openai.endpoints import CHAT
from animica_hooks.sdk.types.openai import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Function,
    Logprobs,
    Message,
    ToolCall,
    Usage,
)

if TYPE_CHECKING:
    from animica_hooks.sdk.async_client import AsyncClient
    from animica_hooks.sdk.client import Client


def _with_usage(params: dict[str, Any]) -> dict[str, Any]:
    """Ask for usage at the stream's end, which OpenAI's API sends only on request."""
    params.setdefault("stream_options", {"include_usage": True})
    return params


class Accumulator:
    """Adds the chunks of a stream up, without I/O."""

    def __init__(self) -> None:
        self._whole = ChatCompletion(object="chat.completion")
        self._choices: dict[int, Choice] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._calls: dict[int, list[ToolCall]] = {}

    def add(self, chunk: ChatCompletionChunk) -> str:
        """Add a chunk; return the text that it adds to the first answer."""
        whole = self._whole
        whole.id = whole.id or chunk.id
        whole.model = whole.model or chunk.model
        whole.created = whole.created or chunk.created
        whole.usage = chunk.usage or whole.usage
        whole.system_fingerprint = chunk.system_fingerprint or whole.system_fingerprint
        whole.service_tier = chunk.service_tier or whole.service_tier
        keep_unknown(whole, chunk)
        text = ""
        for choice in chunk.choices:
            added = self._add(choice)
            text += added if not choice.index else ""
        return text

    def _add(self, part: ChunkChoice) -> str:
        index = _place(part.index)
        choice = self._choices.setdefault(
            index, Choice(index=index, message=Message(role="assistant"))
        )
        choice.finish_reason = part.finish_reason or choice.finish_reason
        if part.logprobs is not None:
            choice.logprobs = _joined_logprobs(choice.logprobs, part.logprobs)
        keep_unknown(choice, part)
        delta = part.delta
        keep_unknown(choice.message, delta)
        if delta.function_call is not None:
            choice.message.function_call = choice.message.function_call or Function()
            _grow(choice.message.function_call, delta.function_call)
        for name in ("content", "refusal", "reasoning_content"):
            piece = getattr(delta, name)
            if isinstance(piece, str):
                self._texts.setdefault((index, name), []).append(piece)
        for call in delta.tool_calls or ():
            self._add_call(self._calls.setdefault(index, []), call)
        return delta.content if isinstance(delta.content, str) else ""

    @staticmethod
    def _add_call(calls: list[ToolCall], part: ToolCall) -> None:
        # A server that leaves out the index sends each call whole.
        known = next((one for one in calls if one.index == part.index is not None), None)
        if known is None:
            calls.append(
                ToolCall(index=part.index, id=part.id, type=part.type, function=Function())
            )
            known = calls[-1]
        known.id = part.id or known.id
        known.type = part.type or known.type
        keep_unknown(known, part)
        assert known.function is not None
        if part.function is not None:
            _grow(known.function, part.function)

    def whole(self) -> ChatCompletion:
        """Return what has come so far, as if it had not been streamed."""
        for (index, name), pieces in self._texts.items():
            setattr(self._choices[index].message, name, "".join(pieces))
        for index, calls in self._calls.items():
            self._choices[index].message.tool_calls = calls
        self._whole.choices = [choice for _, choice in sorted(self._choices.items())]
        return self._whole

    def text(self) -> str:
        """Return the text of the first answer so far."""
        choices = self.whole().choices
        return (choices[0].message.content or "") if choices else ""


def _place(index: object) -> int:
    return index if isinstance(index, int) else 0


def _grow(function: Function, part: Function) -> None:
    function.name = part.name or function.name
    function.arguments = _joined(function.arguments, part.arguments)
    keep_unknown(function, part)


def _joined_logprobs(before: Logprobs | None, more: Logprobs) -> Logprobs:
    """Add the tokens of a chunk to those before them."""
    if before is None:
        return Logprobs(content=more.content, refusal=more.refusal)
    return Logprobs(
        content=_together(before.content, more.content),
        refusal=_together(before.refusal, more.refusal),
    )


def _together(before: Any, more: Any) -> Any:
    return before + more if isinstance(before, list) and isinstance(more, list) else more or before


def _joined(before: Any, more: Any) -> Any:
    """Add text to text; what a server sends in another way it sends whole."""
    if isinstance(more, str) and isinstance(before, str | None):
        return (before or "") + more
    return more or before or ""


class ChatStream(AccumulatedStream[ChatCompletion, ChatCompletionChunk]):
    """The stream of a chat, which adds up."""

    def __init__(self, client: Client, params: dict[str, Any]) -> None:
        super().__init__(client, CHAT, _with_usage(params), Accumulator())

    @property
    def usage(self) -> Usage | None:
        """How many tokens it took, once the API has said so."""
        return self._sum.whole().usage

    @property
    def current_completion_snapshot(self) -> ChatCompletion:
        """What has come so far."""
        return self._whole()

    def get_final_completion(self) -> ChatCompletion:
        """Read what is left and return the whole.

        Raises:
            APIError: the stream broke off.
        """
        self.until_done()
        return self._whole()


class AsyncChatStream(AsyncAccumulatedStream[ChatCompletion, ChatCompletionChunk]):
    """As ``ChatStream``, for coroutines."""

    def __init__(self, client: AsyncClient, params: dict[str, Any]) -> None:
        super().__init__(client, CHAT, _with_usage(params), Accumulator())

    @property
    def usage(self) -> Usage | None:
        """How many tokens it took, once the API has said so."""
        return self._sum.whole().usage

    @property
    def current_completion_snapshot(self) -> ChatCompletion:
        """What has come so far."""
        return self._whole()

    async def get_final_completion(self) -> ChatCompletion:
        """As ``ChatStream.get_final_completion``."""
        await self.until_done()
        return self._whole()
