"""What type checkers know of Anannas' clients."""

from __future__ import annotations

from typing import assert_type

from animica_hooks.sdk import Anannas, AsyncAnannas, anannas
from animica_hooks.sdk.answer import RawResponse
from animica_hooks.sdk.openai.accumulate import AsyncChatStream, ChatStream
from animica_hooks.sdk.stream import AsyncStream, Stream
from animica_hooks.sdk.types.openai import ChatCompletion, ChatCompletionChunk, ModelList, Usage


def chat(client: Anannas) -> None:
    """Whole or streamed is told by ``stream``."""
    create = client.chat.completions.create
    assert_type(create(model="a/b", messages=[]), ChatCompletion)
    stream = create(model="a/b", messages=[], stream=True)
    assert_type(stream, Stream[ChatCompletionChunk])
    with stream as chunks:
        for chunk in chunks:
            assert_type(chunk, ChatCompletionChunk)
    raw = client.chat.completions.with_raw_response.create(model="a/b", messages=[])
    assert_type(raw, RawResponse[ChatCompletion])
    assert_type(raw.parse(), ChatCompletion)
    assert_type(raw.status_code, int)
    create(model=None, messages=[])  # type: ignore[call-overload]


def either(client: Anannas, stream: bool) -> None:
    """Where ``stream`` is not known, it is the one or the other."""
    answer = client.chat.completions.create(model="a/b", messages=[], stream=stream)
    assert_type(answer, ChatCompletion | Stream[ChatCompletionChunk])
    print(answer.choices)  # type: ignore[union-attr]


def helper(client: Anannas) -> None:
    """The stream that adds up."""
    with client.chat.completions.stream(model="a/b", messages=[]) as stream:
        assert_type(stream, ChatStream)
        for text in stream.text_stream:
            assert_type(text, str)
        assert_type(stream.get_final_completion(), ChatCompletion)
        assert_type(stream.usage, Usage | None)
    client.chat.completions.stream(model="a/b")  # type: ignore[call-arg]


async def coroutines(client: AsyncAnannas) -> None:
    """The same, awaited."""
    create = client.chat.completions.create
    assert_type(await create(model="a/b", messages=[]), ChatCompletion)
    stream = await create(model="a/b", messages=[], stream=True)
    assert_type(stream, AsyncStream[ChatCompletionChunk])
    async with client.chat.completions.stream(model="a/b", messages=[]) as helped:
        assert_type(helped, AsyncChatStream)
        async for chunk in helped:
            assert_type(chunk, ChatCompletionChunk)
        async for text in helped.text_stream:
            assert_type(text, str)
        assert_type(await helped.get_final_text(), str)
    assert_type(await client.models.list(), ModelList)
    with stream:  # type: ignore[attr-defined]
        pass


def what_is_not_there(client: Anannas) -> None:
    """Anannas has neither embeddings nor text completions."""
    assert_type(client.models.list(), ModelList)
    print(client.embeddings)  # type: ignore[attr-defined]
    print(client.completions)  # type: ignore[attr-defined]


def failing(client: Anannas) -> None:
    """Errors have what is known of them, or None."""
    try:
        client.models.list()
    except anannas.InsufficientCreditsError as error:
        assert_type(error.status, int | None)
        assert_type(error.request_id, str | None)
        assert_type(error.response.status_code, int | None)
    except anannas.APIConnectionError as error:
        print(error.response)  # type: ignore[attr-defined]
