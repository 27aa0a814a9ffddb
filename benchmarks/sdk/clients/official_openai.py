"""``openai``, as its documentation has it."""

from __future__ import annotations

from openai import OpenAI

from benchmarks.sdk import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import CreateEmbeddingResponse
    from openai.types.chat import ChatCompletionMessageParam

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": asked.SYSTEM},
    {"role": "user", "content": asked.QUESTION},
]


def make(url: str) -> OpenAI:
    return OpenAI(api_key=asked.KEY, base_url=f"{url}/v1")


def ask(client: OpenAI) -> str | None:
    answer = client.chat.completions.create(
        model=asked.MODEL,
        messages=MESSAGES,
        temperature=asked.TEMPERATURE,
        max_tokens=asked.MAX_TOKENS,
    )
    return answer.choices[0].message.content


def stream(client: OpenAI, model: str) -> int:
    size = 0
    for chunk in client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
        if content := chunk.choices[0].delta.content:
            size += len(content)
    return size


def embed(client: OpenAI) -> float:
    return _checked(client.embeddings.create(model=asked.MODEL, input=asked.TEXTS))


def embed_floats(client: OpenAI) -> float:
    return _checked(
        client.embeddings.create(model=asked.MODEL, input=asked.TEXTS, encoding_format="float")
    )


def _checked(answer: CreateEmbeddingResponse) -> float:
    return sum(len(item.embedding) + item.embedding[0] for item in answer.data)


def close(client: OpenAI) -> None:
    client.close()


def make_async(url: str) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    return AsyncOpenAI(api_key=asked.KEY, base_url=f"{url}/v1")


async def ask_async(client: AsyncOpenAI) -> str | None:
    answer = await client.chat.completions.create(
        model=asked.MODEL,
        messages=MESSAGES,
        temperature=asked.TEMPERATURE,
        max_tokens=asked.MAX_TOKENS,
    )
    return answer.choices[0].message.content


async def stream_async(client: AsyncOpenAI, model: str) -> int:
    size = 0
    chunks = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    async for chunk in chunks:
        if content := chunk.choices[0].delta.content:
            size += len(content)
    return size


async def close_async(client: AsyncOpenAI) -> None:
    await client.close()
