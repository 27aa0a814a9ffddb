"""The methods of OpenAI's API, and what the chunks of its streams mean.

https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from animica_hooks.errors import APIRequestError
from animica_hooks.sdk.endpoint import Endpoint
from animica_hooks.sdk.reader import ChunkReader, PlainReader

if TYPE_CHECKING:
    from animica_hooks.sdk.types import plain
    from animica_hooks.sdk.types.openai import (
        ChatCompletion,
        ChatCompletionChunk,
        Completion,
        EmbeddingList,
        ModelInfo,
        ModelList,
    )


class ChatReader(ChunkReader["ChatCompletionChunk"]):
    """Reads the chunks of chat."""

    __slots__ = ()

    def look(self, chunk: ChatCompletionChunk) -> object:
        for choice in chunk.choices:
            self.note(choice.index, choice.delta.content, choice.finish_reason)
        return chunk.error


class TextReader(ChunkReader["Completion"]):
    """Reads the chunks of text completions."""

    __slots__ = ()

    def look(self, chunk: Completion) -> object:
        for choice in chunk.choices:
            self.note(choice.index, choice.text, choice.finish_reason)
        return chunk.error


CHAT: Endpoint[ChatCompletion, ChatCompletionChunk] = Endpoint(
    "POST",
    "/chat/completions",
    answer="openai.ChatCompletion",
    item="openai.ChatCompletionChunk",
    reader=ChatReader,
)
CHAT_PLAIN: Endpoint[plain.ChatCompletionDict, plain.ChatCompletionChunkDict] = Endpoint(
    "POST", "/chat/completions", reader=PlainReader
)
COMPLETIONS: Endpoint[Completion, Completion] = Endpoint(
    "POST",
    "/completions",
    answer="openai.Completion",
    item="openai.Completion",
    reader=TextReader,
)
COMPLETIONS_PLAIN: Endpoint[plain.CompletionDict, plain.CompletionDict] = Endpoint(
    "POST", "/completions", reader=PlainReader
)
EMBEDDINGS: Endpoint[EmbeddingList, None] = Endpoint(
    "POST", "/embeddings", answer="openai.EmbeddingList"
)
EMBEDDINGS_PLAIN: Endpoint[plain.EmbeddingListDict, None] = Endpoint("POST", "/embeddings")
MODELS: Endpoint[ModelList, None] = Endpoint("GET", "/models", answer="openai.ModelList")
MODELS_PLAIN: Endpoint[plain.ModelListDict, None] = Endpoint("GET", "/models")


def model(name: object) -> Endpoint[ModelInfo, None]:
    """Return the method that tells of one model.

    Raises:
        APIRequestError: nothing has such a name.
    """
    # Dots that stand alone would be steps in the path.
    if not isinstance(name, str) or not name.strip(" ."):
        raise APIRequestError("model must be a model's name.")
    from urllib.parse import quote

    try:
        return Endpoint("GET", f"/models/{quote(name, safe=':')}", answer="openai.ModelInfo")
    except UnicodeEncodeError:
        raise APIRequestError("model has lone surrogates, not UTF-8.") from None
