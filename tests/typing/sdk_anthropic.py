"""What type checkers know of Anthropic's clients."""

from __future__ import annotations

from typing import assert_type

from animica_hooks.sdk import Anthropic, AsyncAnthropic, anthropic
from animica_hooks.sdk.answer import RawResponse
from animica_hooks.sdk.anthropic.accumulate import AsyncMessageStream, MessageStream
from animica_hooks.sdk.stream import AsyncStream, Stream
from animica_hooks.sdk.types.anthropic import (
    Completion,
    Message,
    MessageEvent,
    MessageTokensCount,
    Usage,
)


def messages(client: Anthropic) -> None:
    """Whole or streamed is told by ``stream``; a request's parts are known."""
    create = client.messages.create
    answer = create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
    assert_type(answer, Message)
    assert_type(answer.content[0].text, str | None)
    assert_type(answer.usage.output_tokens, int)
    if answer.usage.cache_creation is not None:
        assert_type(answer.usage.cache_creation.ephemeral_5m_input_tokens, int)
    for citation in answer.content[0].citations or ():
        assert_type(citation.cited_text, str)
    create(model="m", max_tokens=9, messages=[{"role": "assistant", "content": answer.content}])
    stream = create(model="m", max_tokens=9, messages=[], stream=True)
    assert_type(stream, Stream[MessageEvent])
    for event in stream:
        assert_type(event.delta.text, str | None)
    create(model="m", messages=[])  # type: ignore[call-overload]
    create(model="m", max_tokens="9", messages=[])  # type: ignore[call-overload]


def counting(client: Anthropic) -> None:
    """Tokens are counted of a text, and of messages."""
    assert_type(client.count_tokens("Hello world!"), int)
    count = client.messages.count_tokens(model="m", messages=[])
    assert_type(count, MessageTokensCount)
    assert_type(count.input_tokens, int)
    client.count_tokens()  # type: ignore[call-arg]


def helper(client: Anthropic) -> None:
    """The stream that adds up."""
    with client.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
        assert_type(stream, MessageStream)
        for text in stream.text_stream:
            assert_type(text, str)
        assert_type(stream.get_final_message(), Message)
        assert_type(stream.usage, Usage)
    client.messages.stream(model="m", messages=[])  # type: ignore[call-arg]


def completions(client: Anthropic) -> None:
    """The older API, whose prompts begin with the two constants."""
    prompt = f"{anthropic.HUMAN_PROMPT} Hi{anthropic.AI_PROMPT}"
    create = client.completions.create
    assert_type(create(model="m", max_tokens_to_sample=9, prompt=prompt), Completion)
    stream = create(model="m", max_tokens_to_sample=9, prompt=prompt, stream=True)
    assert_type(stream, Stream[Completion])
    raw = client.completions.with_raw_response.create(model="m", prompt=prompt)
    assert_type(raw, RawResponse[Completion])
    create(model="m", prompt=prompt)  # type: ignore[call-overload]
    print(client.chat)  # type: ignore[attr-defined]


async def coroutines(client: AsyncAnthropic) -> None:
    """The same, awaited."""
    create = client.messages.create
    assert_type(await create(model="m", max_tokens=9, messages=[]), Message)
    events = await create(model="m", max_tokens=9, messages=[], stream=True)
    assert_type(events, AsyncStream[MessageEvent])
    async with client.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
        assert_type(stream, AsyncMessageStream)
        async for event in stream:
            assert_type(event, MessageEvent)
        async for text in stream.text_stream:
            assert_type(text, str)
        assert_type(await stream.get_final_text(), str)
    assert_type(await client.count_tokens("Hello world!"), int)
    completion = await client.completions.create(model="m", max_tokens_to_sample=9, prompt="Hi")
    assert_type(completion.completion, str)
    for _ in events:  # type: ignore[attr-defined]
        pass


def construction() -> None:
    """With a key or a token, and what all clients take."""
    assert_type(Anthropic("key", "http://127.0.0.1:1", 3, max_retries=0), Anthropic)
    assert_type(AsyncAnthropic(auth_token="token", timeout=None), AsyncAnthropic)
    Anthropic(auth_token=5)  # type: ignore[arg-type]
    Anthropic(max_retries="3")  # type: ignore[arg-type]
    Anthropic(retries=3)  # type: ignore[call-arg]


def failing(client: Anthropic) -> None:
    """The errors of the module are those of the package ``anthropic``."""
    try:
        client.count_tokens("Hello world!")
    except anthropic.RateLimitError as error:
        assert_type(error.status_code, int | None)
        assert_type(error.response.headers["retry-after"], str)
    except anthropic.APIStatusError as error:
        assert_type(error.request_id, str | None)
