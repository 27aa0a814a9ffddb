"""Answers of OpenAI's API, which Animica, the Andy API and Anannas speak.

https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from msgspec import field

from animica_hooks.sdk.model import Model, Result


class Usage(Model):
    """How many tokens a request took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None


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


class Message(Model):
    """What the model says."""

    role: str = ""
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: list[dict[str, Any]] | None = None
    audio: dict[str, Any] | None = None

    _inner: ClassVar[tuple[str, ...]] = ("tool_calls",)


class Choice(Model):
    """One of the answers."""

    index: int = 0
    message: Message = field(default_factory=Message)
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None

    _inner: ClassVar[tuple[str, ...]] = ("message",)


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

    _inner: ClassVar[tuple[str, ...]] = ("tool_calls",)


class ChunkChoice(Model):
    """What a chunk adds to one of the answers."""

    index: int = 0
    delta: Delta = field(default_factory=Delta)
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None

    _inner: ClassVar[tuple[str, ...]] = ("delta",)


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

    _inner: ClassVar[tuple[str, ...]] = ("choices",)


class TextChoice(Model):
    """One of the texts."""

    index: int = 0
    text: str = ""
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


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


class ModelInfo(Model):
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
