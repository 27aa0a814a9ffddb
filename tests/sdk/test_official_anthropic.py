"""The server is honest: the official anthropic package finds on it what it expects of its API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import to_thread
from apiserver import Hold, Space, steps
from client_kinds import (
    ANTHROPIC_LIKE,
    ERROR_STATUSES,
    Kind,
    collected,
    items,
    request_id_of,
    result,
    until_open,
)

QUESTION = [{"role": "user", "content": "Hello, you!"}]
ANSWER = "You said: Hello, you!"
TOOL = {"name": "repeat", "description": "Repeats.", "input_schema": {"type": "object"}}


@pytest.fixture(params=ANTHROPIC_LIKE, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def client(kind: Kind, space: Space) -> AsyncIterator[Any]:
    """A client that tries once, unless a test has it try again."""
    async with kind.client(api_key=space.key, base_url=space.anthropic, max_retries=0) as made:
        yield made


async def ask(client: Any, kind: Kind, **options: Any) -> Any:
    """Ask the question."""
    options = {"model": kind.model, "max_tokens": 100, "messages": QUESTION, **options}
    return await result(client.messages.create(**options))


async def test_a_message_is_answered(client: Any, kind: Kind, space: Space) -> None:
    """A message has its text, stop reason, usage, and the id of its request."""
    message = await ask(client, kind, system="Be brief.")

    assert (ANSWER, "end_turn") == (message.content[0].text, message.stop_reason)
    assert (7, 7) == (message.usage.input_tokens, message.usage.output_tokens)
    assert str(request_id_of(message)).startswith("req_")
    assert space.last.has("anthropic-version")


async def test_a_message_is_streamed(client: Any, kind: Kind) -> None:
    """A stream has the events of a message, in their order."""
    events = await collected(ask(client, kind, stream=True))

    kinds = [event.type for event in events]
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert ["You", " said", ":", " Hello", ",", " you", "!"] == deltas
    assert [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 7,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ] == [kind for kind in kinds if kind != "ping"]
    assert ("end_turn", 7) == (events[-2].delta.stop_reason, events[-2].usage.output_tokens)


async def test_the_stream_helper_accumulates_the_same_message(client: Any, kind: Kind) -> None:
    """What the package's own helper gathers from the stream equals the whole message."""
    whole = await ask(client, kind, tools=[TOOL])
    manager = client.messages.stream(
        model=kind.model, max_tokens=100, messages=QUESTION, tools=[TOOL]
    )
    if hasattr(manager, "__aenter__"):
        async with manager as stream:
            gathered = await stream.get_final_message()
    else:
        with manager as stream:
            gathered = stream.get_final_message()

    assert {"text": "Hello, you!"} == whole.content[0].input == gathered.content[0].input
    assert ("tool_use", "repeat") == (gathered.stop_reason, gathered.content[0].name)
    assert whole.usage == gathered.usage


async def test_limits_and_stop_sequences_are_honoured(client: Any, kind: Kind) -> None:
    """A message ends at max_tokens or at a stop sequence, and says which."""
    short = await ask(client, kind, max_tokens=2)
    stopped = await ask(client, kind, stop_sequences=["Hello"])

    assert ("You said", "max_tokens") == (short.content[0].text, short.stop_reason)
    assert ("stop_sequence", "Hello") == (stopped.stop_reason, stopped.stop_sequence)
    assert "You said: " == stopped.content[0].text


async def test_tokens_are_counted(client: Any, kind: Kind) -> None:
    """Counting answers the message's input tokens."""
    messages = [{"role": "user", "content": "Hello world!"}]
    counted = await result(client.messages.count_tokens(model=kind.model, messages=messages))

    assert 3 == counted.input_tokens


@pytest.mark.parametrize(("status", "error"), ERROR_STATUSES)
async def test_an_error_status_is_its_error(
    client: Any, kind: Kind, space: Space, status: int, error: str
) -> None:
    """Each error status raises its class, with the message and the request's id."""
    space.script(steps.error(status, "No."))

    with pytest.raises(kind.error(error)) as caught:
        await ask(client, kind)

    raised: Any = caught.value
    assert (status, raised.body["request_id"]) == (raised.status_code, raised.request_id)
    assert "No." in raised.message


async def test_a_wrong_key_is_refused(kind: Kind, space: Space) -> None:
    """A key that was revoked raises AuthenticationError."""
    async with kind.client(api_key="sk-revoked", base_url=space.anthropic) as client:
        with pytest.raises(kind.error("AuthenticationError")):
            await ask(client, kind)


@pytest.mark.parametrize(
    "trouble",
    [
        steps.error(429, headers=steps.retry_after("seconds", 0.01)),
        steps.error(529, headers=steps.retry_after("milliseconds", 1)),
        steps.error(409, headers=steps.retry_after("milliseconds", 1)),
        steps.hung_up(),
        steps.reset(),
    ],
    ids=["429", "529", "409", "hung-up", "reset"],
)
async def test_trouble_is_retried(
    client: Any, kind: Kind, space: Space, trouble: steps.Step
) -> None:
    """After a passing trouble the second request is answered."""
    space.script(trouble)

    message = await ask(client.with_options(max_retries=1), kind)

    assert ANSWER == message.content[0].text
    assert 2 == len(space.requests)


async def test_the_rate_limit_shows(client: Any, kind: Kind, space: Space) -> None:
    """Every answer has the rate-limit headers, with the moment of their reset."""
    space.requests_per_minute = 60
    raw = await result(
        client.messages.with_raw_response.create(model=kind.model, max_tokens=9, messages=QUESTION)
    )

    assert ("60", "59") == (
        raw.headers["anthropic-ratelimit-requests-limit"],
        raw.headers["anthropic-ratelimit-requests-remaining"],
    )
    assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")


@pytest.mark.parametrize("status", [500, 529, 429])
async def test_an_error_event_is_an_error(
    client: Any, kind: Kind, space: Space, status: int
) -> None:
    """An error event in mid-stream raises with its message, after the events before it."""
    space.script(steps.failing(4, status, "Overloaded"))

    arriving = items(await ask(client, kind, stream=True))
    seen = [await anext(arriving) for _ in range(3)]

    # The ping among the four is not shown.
    assert "content_block_delta" == seen[-1].type
    with pytest.raises(kind.error("APIStatusError"), match="Overloaded"):
        await anext(arriving)


@pytest.mark.parametrize(
    "oddity",
    [
        steps.rechunked(1),
        steps.compressed(),
        steps.informed(100, 103),
        steps.oddly_chunked(),
    ],
    ids=["bytes", "gzip", "informed", "odd-chunks"],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_odd_but_valid_delivery_is_understood(
    client: Any, kind: Kind, space: Space, oddity: steps.Step, streamed: bool
) -> None:
    """However a valid answer is cut, packed or announced, it reads the same."""
    space.script(oddity)

    answer = await ask(client, kind, stream=streamed)
    events = await collected(answer) if streamed else []

    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert ANSWER == (text if streamed else answer.content[0].text)


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
