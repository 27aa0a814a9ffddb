"""The flat methods' answers, as type checkers see them: dicts, with what the API documents."""

from __future__ import annotations

from typing import Any, TypedDict


class UsageDict(TypedDict, total=False):
    """How many tokens a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class MessageDict(TypedDict, total=False):
    """What the model says, or a chunk adds to it."""

    role: str
    content: str
    refusal: str | None
    tool_calls: list[dict[str, Any]]


class ChoiceDict(TypedDict):
    """One of the answers."""

    index: int
    message: MessageDict
    finish_reason: str | None


class ChatCompletionDict(TypedDict):
    """An answer of ``chat_completions``."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChoiceDict]
    usage: UsageDict


class ChunkChoiceDict(TypedDict):
    """What a chunk adds to one of the answers."""

    index: int
    delta: MessageDict
    finish_reason: str | None


class ChatCompletionChunkDict(TypedDict):
    """A chunk of a streamed answer of ``chat_completions``."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoiceDict]


class TextChoiceDict(TypedDict):
    """One of the texts."""

    index: int
    text: str
    finish_reason: str | None


class CompletionDict(TypedDict):
    """An answer of ``completions``, or a chunk of one that is streamed."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoiceDict]
    usage: UsageDict


class EmbeddingDict(TypedDict):
    """The vector of one input."""

    index: int
    object: str
    embedding: list[float]


class EmbeddingListDict(TypedDict):
    """An answer of ``embeddings``."""

    object: str
    data: list[EmbeddingDict]
    model: str
    usage: UsageDict


class ModelDict(TypedDict):
    """A model that the API has."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelListDict(TypedDict):
    """An answer of ``models``."""

    object: str
    data: list[ModelDict]


class UsageReportDict(TypedDict):
    """An answer of ``usage``; Animica documents these two of its fields."""

    totalSpentUsd: float
    count: int
