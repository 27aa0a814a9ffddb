"""What type checkers know of Animica's clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import assert_type

from animica_hooks.sdk import Animica, AnimicaError, APIError, AsyncAnimica, verify_webhook
from animica_hooks.sdk.animica import NOT_GIVEN, AsyncOpenAI, OpenAI, OpenAIError
from animica_hooks.sdk.answer import RawResponse
from animica_hooks.sdk.stream import AsyncStream, Stream
from animica_hooks.sdk.types import plain
from animica_hooks.sdk.types.animica import UsageReport
from animica_hooks.sdk.types.openai import (
    ChatCompletion,
    Completion,
    EmbeddingList,
    ModelInfo,
    ModelList,
    PromptTokensDetails,
    TokenLogprob,
)


def flat(client: Animica) -> None:
    """The flat methods return dicts, of which the documented keys are known."""
    chat = client.chat_completions(model="anm-fast-8b", messages=[], temperature=0.7, seed=1)
    assert_type(chat, plain.ChatCompletionDict)
    assert_type(chat["usage"], plain.UsageDict)
    assert_type(client.completions(model="anm-fast-8b", prompt="Once")["choices"][0]["text"], str)
    vectors = client.embeddings(model="anm-embed", input=["a"])
    assert_type(vectors["data"][0]["embedding"], list[float])
    assert_type(client.models()["data"][0]["id"], str)
    assert_type(client.usage()["totalSpentUsd"], float)
    chat["choice"]  # type: ignore[typeddict-item]
    client.usage()["total"]  # type: ignore[typeddict-item]


def flat_streams(client: Animica) -> None:
    """Streamed, they are generators."""
    chat = client.chat_completions(model="anm-fast-8b", messages=[], stream=True)
    assert_type(chat, Generator[plain.ChatCompletionChunkDict])
    for chunk in chat:
        delta = chunk["choices"][0]["delta"]
        if "content" in delta:
            assert_type(delta["content"], str)
    texts = client.completions(model="anm-fast-8b", prompt="Once", stream=True)
    assert_type(texts, Generator[plain.CompletionDict])
    client.chat_completions(model="anm-fast-8b", messages=[], stream=1)  # type: ignore[call-overload]


def typed(client: Animica) -> None:
    """The resources return objects."""
    chat = client.chat.completions.create(model="anm-fast-8b", messages=[])
    assert_type(chat, ChatCompletion)
    assert_type(chat.request_id, str | None)
    completions = client.completions
    assert_type(completions.create(model="m", prompt="Once"), Completion)
    assert_type(completions.create(model="m", prompt="Once", stream=True), Stream[Completion])
    assert_type(completions.with_raw_response.create(model="m"), RawResponse[Completion])
    assert_type(client.embeddings.create(model="anm-embed", input="a"), EmbeddingList)
    assert_type(client.models.list(), ModelList)
    assert_type(client.models.retrieve("m"), ModelInfo)
    client.models.retrieve()  # type: ignore[call-arg]
    assert_type(client.usage.list(), UsageReport)
    assert_type(client.usage.list().total_spent_usd, float)
    client.embeddings.create(model="anm-embed")  # type: ignore[call-arg]
    chat["choices"][0]["message"]


async def coroutines(client: AsyncAnimica) -> None:
    """The same, awaited."""
    chat = await client.chat_completions(model="anm-fast-8b", messages=[])
    assert_type(chat, plain.ChatCompletionDict)
    chunks = await client.chat_completions(model="anm-fast-8b", messages=[], stream=True)
    assert_type(chunks, AsyncGenerator[plain.ChatCompletionChunkDict])
    assert_type(await client.usage(), plain.UsageReportDict)
    assert_type(await client.usage.list(), UsageReport)
    completions = client.completions
    texts = await completions.create(model="m", prompt="Once", stream=True)
    assert_type(texts, AsyncStream[Completion])
    assert_type(await completions(model="m", prompt="Once"), plain.CompletionDict)
    client.usage()["count"]  # type: ignore[index]


async def openai(client: OpenAI, other: AsyncOpenAI) -> None:
    """By the names of the package openai, and by its ways."""
    assert_type(client, Animica)
    assert_type(other, AsyncAnimica)
    root: type[Exception] = OpenAIError
    print(root)
    chat = client.chat.completions.create(model="m", messages=[], temperature=NOT_GIVEN)
    assert_type(chat, ChatCompletion)
    if chat.usage is not None:
        assert_type(chat.usage.prompt_tokens_details, PromptTokensDetails | None)
    if (likely := chat.choices[0].logprobs) is not None:
        assert_type(likely.content, list[TokenLogprob] | None)
    async for found in other.models.list():
        assert_type(found, ModelInfo)
    assert_type(await other.models.list(), ModelList)
    assert_type(await other.models.retrieve("m"), ModelInfo)
    print(chat.model_dump(mode="json", exclude_none=True))


def failing(error: AnimicaError) -> None:
    """The seed's name is the one tree's root."""
    same: type[APIError] = AnimicaError
    assert_type(same(), APIError)
    assert_type(error.status, int | None)
    assert_type(error.message, str)
    print(error.response)  # type: ignore[attr-defined]


def webhooks(body: bytes, header: str) -> None:
    """Verifying is a question with an answer."""
    assert_type(verify_webhook("whsec_x", body, header), bool)
