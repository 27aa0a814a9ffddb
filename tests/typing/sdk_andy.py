"""What type checkers know of the Andy API's clients."""

from __future__ import annotations

from typing import assert_type

from animica_hooks.sdk import Andy, AsyncAndy, andy
from animica_hooks.sdk.answer import RawResponse
from animica_hooks.sdk.stream import AsyncStream, Stream
from animica_hooks.sdk.types.andy import PoolHost, PoolStatusReport
from animica_hooks.sdk.types.openai import (
    ChatCompletion,
    ChatCompletionChunk,
    EmbeddingList,
    ModelList,
)


def chat(client: Andy) -> None:
    """Whole or streamed is told by ``stream``."""
    create = client.chat.completions.create
    answer = create(model="andy-4", messages=[{"role": "user", "content": "Hi"}], temperature=0.7)
    assert_type(answer, ChatCompletion)
    assert_type(answer.choices[0].message.content, str | None)
    assert_type(create(model="andy-4", messages=[], stream=False), ChatCompletion)
    assert_type(create(model="andy-4", messages=[], stream=True), Stream[ChatCompletionChunk])
    create(messages=[])  # type: ignore[call-overload]
    create(model=4, messages=[])  # type: ignore[call-overload]
    create(model="andy-4", messages="Hi")  # type: ignore[arg-type]


def everything_else(client: Andy) -> None:
    """Embeddings, models, and the pool."""
    assert_type(client.embeddings.create(model="embed", input=["a"]), EmbeddingList)
    assert_type(client.models.list(), ModelList)
    pool = client.pool_status(timeout=5)
    assert_type(pool, PoolStatusReport)
    assert_type(pool.hosts, list[PoolHost])
    assert_type(pool.hosts[0].load, float)
    assert_type(client.pool_status.with_raw_response(), RawResponse[PoolStatusReport])
    print(client.completions)  # type: ignore[attr-defined]
    client.pool_status.create()  # type: ignore[attr-defined]


async def coroutines(client: AsyncAndy) -> None:
    """The same, awaited."""
    create = client.chat.completions.create
    answer = await create(model="andy-4", messages=[])
    assert_type(answer, ChatCompletion)
    stream = await create(model="andy-4", messages=[], stream=True)
    assert_type(stream, AsyncStream[ChatCompletionChunk])
    async for chunk in stream:
        assert_type(chunk.choices[0].delta.content, str | None)
    assert_type(await client.embeddings.create(model="embed", input="a"), EmbeddingList)
    assert_type(await client.models.list(), ModelList)
    assert_type(await client.pool_status(), PoolStatusReport)
    assert_type(await client.pool_status.with_raw_response(), RawResponse[PoolStatusReport])
    for _ in stream:  # type: ignore[attr-defined]
        pass


def construction() -> None:
    """The key is optional."""
    assert_type(Andy(), Andy)
    assert_type(Andy("key", base_url="http://127.0.0.1:1", max_retries=0), Andy)
    assert_type(AsyncAndy().with_options(timeout=3), AsyncAndy)
    assert_type(andy.RateLimitError().headers is None, bool)
    Andy(5)  # type: ignore[arg-type]
    Andy(retries=3)  # type: ignore[call-arg]
