"""The server is honest: the official openai package finds on it what it expects of such an API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import to_thread
from apiserver import Hold, Space, steps
from client_kinds import (
    COMPLETING,
    EMBEDDING,
    ERROR_STATUSES,
    OPENAI_LIKE,
    Kind,
    collected,
    items,
    request_id_of,
    result,
    until_open,
)

QUESTION = [{"role": "user", "content": "Hello, you!"}]
ANSWER = "You said: Hello, you!"
TOOL = {"type": "function", "function": {"name": "repeat", "parameters": {"type": "object"}}}


@pytest.fixture(params=OPENAI_LIKE, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def client(kind: Kind, space: Space) -> AsyncIterator[Any]:
    """A client whose retries wait no longer than they must."""
    url = space.url(kind.provider)
    async with kind.client(api_key=space.key, base_url=url, max_retries=0) as made:
        yield made


async def ask(client: Any, kind: Kind, **options: Any) -> Any:
    """Ask the question."""
    create = client.chat.completions.create
    return await result(create(model=kind.model, messages=QUESTION, **options))


async def test_chat_is_answered(client: Any, kind: Kind, space: Space) -> None:
    """A chat completion has its text, finish reason, usage, and the id of its request."""
    answer = await ask(client, kind)

    choice = answer.choices[0]
    assert (ANSWER, "stop") == (choice.message.content, choice.finish_reason)
    assert (4, 7, 11) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.usage.total_tokens,
    )
    assert str(request_id_of(answer)).startswith("req_")
    assert {"model": kind.model, "messages": QUESTION} == space.last.json


async def test_chat_is_streamed(client: Any, kind: Kind) -> None:
    """A stream has the same text in pieces, then the finish reason, then the usage."""
    chunks = await collected(ask(client, kind, stream=True, stream_options={"include_usage": True}))

    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert ["", "You", " said", ":", " Hello", ",", " you", "!", None] == pieces
    assert [None] * 8 + ["stop"] == finishes
    assert 11 == chunks[-1].usage.total_tokens


async def test_several_choices_and_a_limit_are_honoured(client: Any, kind: Kind) -> None:
    """Several choices are answered, each cut at max_tokens, and whole or streamed they agree."""
    whole = await ask(client, kind, n=2, max_tokens=2)
    chunks = await collected(ask(client, kind, n=2, max_tokens=2, stream=True))

    streamed = ["", ""]
    for chunk in chunks:
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert ["You said", "You said"] == [choice.message.content for choice in whole.choices]
    assert ["length", "length"] == [choice.finish_reason for choice in whole.choices]
    assert ["You said", "You said"] == streamed


async def test_a_tool_is_called(client: Any, kind: Kind) -> None:
    """A request with a tool is answered with a call of it, whole or in fragments."""
    whole = await ask(client, kind, tools=[TOOL])
    chunks = await collected(ask(client, kind, tools=[TOOL], stream=True))

    (call,) = whole.choices[0].message.tool_calls
    calls = [
        part.choices[0].delta.tool_calls for part in chunks if part.choices[0].delta.tool_calls
    ]
    fragments = "".join(found[0].function.arguments for found in calls)
    assert ("repeat", {"text": "Hello, you!"}) == (
        call.function.name,
        json.loads(call.function.arguments),
    )
    assert ("repeat", call.function.arguments) == (calls[0][0].function.name, fragments)
    assert ("tool_calls", "tool_calls") == (
        whole.choices[0].finish_reason,
        chunks[-1].choices[0].finish_reason,
    )


async def test_models_are_listed(client: Any, kind: Kind) -> None:
    """The list of models has the one that chats, which can be asked for by its name."""
    models = await result(client.models.list())
    assert kind.model == (await result(client.models.retrieve(kind.model))).id

    assert kind.model in [model.id for model in models.data]


@pytest.mark.parametrize("kind", EMBEDDING, ids=str, indirect=True)
@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings_are_the_same_in_each_encoding(
    client: Any, kind: Kind, encoding: str | None
) -> None:
    """As numbers, as base64, and as the package decodes its own default, they are equal."""
    if kind.provider == "anannas":
        with pytest.raises(kind.error("NotFoundError")):
            await result(client.embeddings.create(model="openai/gpt-5-mini", input="one"))
        return
    options = {} if encoding is None else {"encoding_format": encoding}
    texts = ["one", "two", "one"]
    answer = await result(client.embeddings.create(model="anm-embed", input=texts, **options))

    first, second, third = (item.embedding for item in answer.data)
    if encoding == "base64":
        assert isinstance(first, str)
    else:
        plain = await result(
            client.embeddings.create(model="anm-embed", input=texts, encoding_format="float")
        )
        assert [item.embedding for item in plain.data] == [first, second, third]
        assert 8 == len(first)
    assert first == third != second
    assert (3, 3) == (answer.usage.prompt_tokens, answer.usage.total_tokens)


@pytest.mark.parametrize("kind", COMPLETING, ids=str, indirect=True)
async def test_text_is_completed(client: Any, kind: Kind) -> None:
    """A text completion is answered whole and streamed, by the provider that has them."""
    create = client.completions.create
    if kind.provider != "animica":
        with pytest.raises(kind.error("NotFoundError")):
            await result(create(model=kind.model, prompt="Once"))
        return
    whole = await result(create(model=kind.model, prompt="Once upon"))
    chunks = await collected(create(model=kind.model, prompt="Once upon", stream=True))

    assert ("Once upon ...", "stop") == (whole.choices[0].text, whole.choices[0].finish_reason)
    assert "Once upon ..." == "".join(chunk.choices[0].text for chunk in chunks)
    assert "stop" == chunks[-1].choices[0].finish_reason


@pytest.mark.parametrize(("status", "error"), ERROR_STATUSES)
async def test_an_error_status_is_its_error(
    client: Any, kind: Kind, space: Space, status: int, error: str
) -> None:
    """Each error status raises its class, with message, code and the request's id."""
    space.script(steps.error(status, "No.", code="because"))

    with pytest.raises(kind.error(error)) as caught:
        await ask(client, kind)

    raised: Any = caught.value
    assert (status, "because") == (raised.status_code, raised.code)
    assert "No." in raised.message
    assert raised.request_id.startswith("req_")


async def test_a_wrong_key_is_refused(kind: Kind, space: Space) -> None:
    """A key that was revoked raises AuthenticationError."""
    url = space.url(kind.provider)
    async with kind.client(api_key="anm_live_revoked", base_url=url) as client:
        with pytest.raises(kind.error("AuthenticationError")):
            await ask(client, kind)

    assert "Bearer anm_live_revoked" == space.last.header("authorization")


@pytest.mark.parametrize(
    "trouble",
    [
        steps.error(429, headers=steps.retry_after("milliseconds", 0.01)),
        steps.error(503, headers=steps.retry_after("seconds", 0.01)),
        steps.error(500, headers={"x-should-retry": "true", "retry-after-ms": "1"}),
        steps.error(400, headers={"x-should-retry": "true", "retry-after-ms": "1"}),
        steps.hung_up(),
        steps.reset(),
    ],
    ids=["429", "503", "500", "400-should-retry", "hung-up", "reset"],
)
async def test_trouble_is_retried(
    client: Any, kind: Kind, space: Space, trouble: steps.Step
) -> None:
    """After a passing trouble the second request is answered."""
    space.script(trouble)

    answer = await ask(client.with_options(max_retries=1), kind)

    assert ANSWER == answer.choices[0].message.content
    assert 2 == len(space.requests)


async def test_what_should_not_be_retried_is_not(client: Any, kind: Kind, space: Space) -> None:
    """x-should-retry: false ends it at the first request."""
    space.always(steps.error(500, headers={"x-should-retry": "false"}))

    with pytest.raises(kind.error("InternalServerError")):
        await ask(client.with_options(max_retries=2), kind)

    assert 1 == len(space.requests)


async def test_the_rate_limit_shows(client: Any, kind: Kind, space: Space) -> None:
    """Every answer has the rate-limit headers, which count down."""
    raw = client.chat.completions.with_raw_response.create
    space.requests_per_minute = 60
    first = await result(raw(model=kind.model, messages=QUESTION))
    second = await result(raw(model=kind.model, messages=QUESTION))

    shown = [
        (
            answer.headers["x-ratelimit-limit-requests"],
            answer.headers["x-ratelimit-remaining-requests"],
        )
        for answer in (first, second)
    ]
    assert [("60", "59"), ("60", "58")] == shown


async def test_a_timeout_is_one(client: Any, kind: Kind, space: Space) -> None:
    """A server that says nothing is APITimeoutError, and it learns that the client left."""
    space.script(steps.held(Hold()))

    with pytest.raises(kind.error("APITimeoutError")):
        await ask(client.with_options(timeout=0.2), kind)

    await to_thread.run_sync(space.wait_for, lambda: space.last.broken_off)


@pytest.mark.parametrize(
    ("trouble", "streamed"),
    [
        (steps.truncated(), False),
        (steps.truncated(), True),
        (steps.broken(3), True),
        (steps.reset(3), True),
        (steps.failing(3), True),
    ],
    ids=["truncated", "truncated-stream", "broken", "reset", "failing"],
)
async def test_what_breaks_off_is_an_error(
    client: Any, kind: Kind, space: Space, trouble: steps.Step, streamed: bool
) -> None:
    """A body that ends too soon, or says so itself, is one of the package's errors."""
    space.script(trouble)

    asked = ask(client, kind, stream=streamed)
    with pytest.raises(kind.error("APIError")):
        await (collected(asked) if streamed else asked)


@pytest.mark.parametrize(
    "oddity",
    [
        steps.rechunked(1),
        steps.rechunked(1000),
        steps.compressed(),
        steps.informed(100, 103),
        steps.oddly_chunked(),
        steps.paced(0.001),
    ],
    ids=["bytes", "one-chunk", "gzip", "informed", "odd-chunks", "paced"],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_odd_but_valid_delivery_is_understood(
    client: Any, kind: Kind, space: Space, oddity: steps.Step, streamed: bool
) -> None:
    """However a valid answer is cut, packed or announced, it reads the same."""
    space.script(oddity)

    answer = await ask(client, kind, stream=streamed)
    chunks = await collected(answer) if streamed else []

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert ANSWER == (text if streamed else answer.choices[0].message.content)


async def test_a_closed_stream_is_seen(client: Any, kind: Kind, space: Space) -> None:
    """A client that closes a stream early frees its connection, and the server sees it go."""
    hold = Hold()
    space.script(steps.held(hold, after=2))
    stream = await ask(client, kind, stream=True)
    arriving = items(stream)
    await anext(arriving)

    await result(stream.close())
    await arriving.aclose()

    await to_thread.run_sync(space.wait_for, lambda: space.last.broken_off)
    await until_open(space, 0)
