"""``animica_hooks.sdk``, with typed answers as ``openai`` has them."""

from __future__ import annotations

from animica_hooks.sdk import Animica
from benchmarks.sdk import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from animica_hooks.sdk import AsyncAnimica
    from animica_hooks.sdk.types.openai import EmbeddingList


def make(url: str) -> Animica:
    return Animica(api_key=asked.KEY, base_url=f"{url}/v1")


def ask(client: Animica) -> str | None:
    answer = client.chat.completions.create(
        model=asked.MODEL,
        messages=asked.MESSAGES,
        temperature=asked.TEMPERATURE,
        max_tokens=asked.MAX_TOKENS,
    )
    return answer.choices[0].message.content


def stream(client: Animica, model: str) -> int:
    size = 0
    for chunk in client.chat.completions.create(model=model, messages=asked.MESSAGES, stream=True):
        if content := chunk.choices[0].delta.content:
            size += len(content)
    return size


def embed(client: Animica) -> float:
    return _checked(client.embeddings.create(model=asked.MODEL, input=asked.TEXTS))


def embed_floats(client: Animica) -> float:
    return _checked(
        client.embeddings.create(model=asked.MODEL, input=asked.TEXTS, encoding_format="float")
    )


def _checked(answer: EmbeddingList) -> float:
    return sum(len(item.embedding) + float(item.embedding[0]) for item in answer.data)


def close(client: Animica) -> None:
    client.close()


def make_async(url: str) -> AsyncAnimica:
    from animica_hooks.sdk import AsyncAnimica

    return AsyncAnimica(api_key=asked.KEY, base_url=f"{url}/v1")


async def ask_async(client: AsyncAnimica) -> str | None:
    answer = await client.chat.completions.create(
        model=asked.MODEL,
        messages=asked.MESSAGES,
        temperature=asked.TEMPERATURE,
        max_tokens=asked.MAX_TOKENS,
    )
    return answer.choices[0].message.content


async def stream_async(client: AsyncAnimica, model: str) -> int:
    size = 0
    chunks = await client.chat.completions.create(model=model, messages=asked.MESSAGES, stream=True)
    async for chunk in chunks:
        if content := chunk.choices[0].delta.content:
            size += len(content)
    return size


async def close_async(client: AsyncAnimica) -> None:
    await client.close()
