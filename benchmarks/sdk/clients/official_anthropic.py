"""``anthropic``, as its documentation has it."""

from __future__ import annotations

from anthropic import Anthropic

from benchmarks.sdk import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import Message, MessageParam, RawMessageStreamEvent

MESSAGES: list[MessageParam] = [{"role": "user", "content": asked.QUESTION}]


def make(url: str) -> Anthropic:
    return Anthropic(api_key=asked.KEY, base_url=url)


def ask(client: Anthropic) -> str:
    # Without a temperature, which some of its models no longer take.
    answer = client.messages.create(
        model=asked.MODEL, max_tokens=asked.MAX_TOKENS, system=asked.SYSTEM, messages=MESSAGES
    )
    return _text(answer)


def _text(answer: Message) -> str:
    block = answer.content[0]
    return block.text if block.type == "text" else ""


def stream(client: Anthropic, model: str) -> int:
    events = client.messages.create(
        model=model,
        max_tokens=asked.MAX_TOKENS,
        system=asked.SYSTEM,
        messages=MESSAGES,
        stream=True,
    )
    return sum(_size(event) for event in events)


def _size(event: RawMessageStreamEvent) -> int:
    if event.type == "content_block_delta" and event.delta.type == "text_delta":
        return len(event.delta.text)
    return 0


def close(client: Anthropic) -> None:
    client.close()


def make_async(url: str) -> AsyncAnthropic:
    from anthropic import AsyncAnthropic

    return AsyncAnthropic(api_key=asked.KEY, base_url=url)


async def ask_async(client: AsyncAnthropic) -> str:
    answer = await client.messages.create(
        model=asked.MODEL, max_tokens=asked.MAX_TOKENS, system=asked.SYSTEM, messages=MESSAGES
    )
    return _text(answer)


async def stream_async(client: AsyncAnthropic, model: str) -> int:
    events = await client.messages.create(
        model=model,
        max_tokens=asked.MAX_TOKENS,
        system=asked.SYSTEM,
        messages=MESSAGES,
        stream=True,
    )
    size = 0
    async for event in events:
        size += _size(event)
    return size


async def close_async(client: AsyncAnthropic) -> None:
    await client.close()
