"""Answers of OpenAI's API, which Animica, the Andy API and Anannas speak.

https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from msgspec import field

from animica_hooks.sdk.model import Model, Result


class PromptTokensDetails(Model):
    """Of which kinds a prompt's tokens were."""

    cached_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionTokensDetails(Model):
    """Of which kinds an answer's tokens were."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class Usage(Model):
    """How many tokens a request took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None

    _inner: ClassVar[tuple[str, ...]] = ("prompt_tokens_details", "completion_tokens_details")


class Function(Model):
    """A function that the model calls; ``arguments`` is JSON, as far as the model wrote it."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Model):
    """A tool that the model calls."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None

    _inner: ClassVar[tuple[str, ...]] = ("function",)


class URLCitation(Model):
    """A page that a part of the text rests on; the indices are places in the text."""

    url: str = ""
    title: str = ""
    start_index: int | None = None
    end_index: int | None = None


class Annotation(Model):
    """A note on the text."""

    type: str = ""
    url_citation: URLCitation | None = None

    _inner: ClassVar[tuple[str, ...]] = ("url_citation",)


class Message(Model):
    """What the model says; ``function_call`` is the older way to call one tool."""

    role: str = ""
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    annotations: list[Annotation] | None = None
    audio: dict[str, Any] | None = None

    _inner: ClassVar[tuple[str, ...]] = ("tool_calls", "function_call", "annotations")


class TopLogprob(Model):
    """A token that could have been next, and the logarithm of its probability."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    """A token of the answer, and those that were likely in its place."""

    top_logprobs: list[TopLogprob] = field(default_factory=list)

    _inner: ClassVar[tuple[str, ...]] = ("top_logprobs",)


class Logprobs(Model):
    """How likely the tokens of an answer were."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None

    _inner: ClassVar[tuple[str, ...]] = ("content", "refusal")


class Choice(Model):
    """One of the answers."""

    index: int = 0
    message: Message = field(default_factory=Message)
    finish_reason: str | None = None
    logprobs: Logprobs | None = None

    _inner: ClassVar[tuple[str, ...]] = ("message", "logprobs")


class ChatCompletion(Result):
    """An answer of ``chat/completions``."""

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    choices: list[Choice] = field(default_factory=list)
    usage: Usage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None

    _inner: ClassVar[tuple[str, ...]] = ("choices", "usage")


class Delta(Model):
    """What a chunk adds to the message."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None

    _inner: ClassVar[tuple[str, ...]] = ("tool_calls", "function_call")


class ChunkChoice(Model):
    """What a chunk adds to one of the answers."""

    index: int = 0
    delta: Delta = field(default_factory=Delta)
    finish_reason: str | None = None
    logprobs: Logprobs | None = None

    _inner: ClassVar[tuple[str, ...]] = ("delta", "logprobs")


class ChatCompletionChunk(Model):
    """A chunk of a streamed answer of ``chat/completions``."""

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    choices: list[ChunkChoice] = field(default_factory=list)
    usage: Usage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: Any = None

    _inner: ClassVar[tuple[str, ...]] = ("choices", "usage")


class TextLogprobs(Model):
    """How likely the tokens of a text were: lists with an entry for each token."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


class TextChoice(Model):
    """One of the texts."""

    index: int = 0
    text: str = ""
    finish_reason: str | None = None
    logprobs: TextLogprobs | None = None

    _inner: ClassVar[tuple[str, ...]] = ("logprobs",)


class Completion(Result):
    """An answer of ``completions``, or a chunk of one that is streamed."""

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    choices: list[TextChoice] = field(default_factory=list)
    usage: Usage | None = None
    system_fingerprint: str | None = None
    error: Any = None

    _inner: ClassVar[tuple[str, ...]] = ("choices", "usage")


class Embedding(Model):
    """The vector of one input; a string where base64 was asked for."""

    index: int = 0
    embedding: list[float] | str = field(default_factory=list)
    object: str = ""


class EmbeddingList(Result):
    """An answer of ``embeddings``."""

    data: list[Embedding] = field(default_factory=list)
    model: str = ""
    object: str = ""
    usage: Usage | None = None

    _inner: ClassVar[tuple[str, ...]] = ("data", "usage")


class ModelInfo(Result):
    """A model that the API has."""

    id: str = ""
    object: str = ""
    created: int = 0
    owned_by: str = ""


class ModelList(Result):
    """An answer of ``models``."""

    data: list[ModelInfo] = field(default_factory=list)
    object: str = ""

    _inner: ClassVar[tuple[str, ...]] = ("data",)

    def __iter__(self) -> Iterator[ModelInfo]:
        return iter(self.data)

    async def __aiter__(self) -> AsyncIterator[ModelInfo]:
        for found in self.data:
            yield found
