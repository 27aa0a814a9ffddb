"""Clients against a server of another make: aimock, with its own reading of the same documents.

Needs node and npm. What it answers is in ``aimock/fixtures.json``; with its chaos headers a single
request meets trouble.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_kinds import ANTHROPIC_LIKE, EMBEDDING, OPENAI_LIKE, Kind, collected, result
from node_packages import installed

HERE = Path(__file__).resolve().parent / "aimock"
GREETING = "Hello! How can I help you today? Take your time."
TOOL = {"name": "look_outside", "parameters": {"type": "object"}}

# A chaos header, and the error that it comes to.
CHAOS = [
    ("drop", "InternalServerError"),
    ("ratelimit", "RateLimitError"),
    ("disconnect", "APIConnectionError"),
]


@pytest.fixture(scope="session")
def aimock() -> Iterator[str]:
    """The server's origin."""
    package = installed(HERE, "@copilotkit/aimock")
    command = ["node", str(package / "dist" / "cli.js"), "--port", "0", "--chunk-size", "8"]
    command += ["--fixtures", str(HERE / "fixtures.json"), "--strict", "--validate-on-load"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        listening = next(line for line in process.stdout if "listening on " in line)
        # What it says later is read, so that it never waits for a reader.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield listening.rpartition(" ")[2].strip()
        process.terminate()


@pytest.fixture(params=OPENAI_LIKE, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def client(kind: Kind, aimock: str) -> AsyncIterator[Any]:
    options = {"api_key": "anm_test_x", "base_url": f"{aimock}/v1", "max_retries": 0}
    async with kind.client(**options) as made:
        yield made


@pytest.fixture(params=ANTHROPIC_LIKE, ids=str)
def anthropic_kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def anthropic_client(anthropic_kind: Kind, aimock: str) -> AsyncIterator[Any]:
    options = {"api_key": "anm_test_x", "base_url": aimock, "max_retries": 0}
    async with anthropic_kind.client(**options) as made:
        yield made


async def chat(client: Any, kind: Kind, text: str, **options: Any) -> Any:
    """Say something to an OpenAI-like client's chat."""
    messages = [{"role": "user", "content": text}]
    create = client.chat.completions.create
    return await result(create(model=kind.model, messages=messages, **options))


async def message(client: Any, kind: Kind, text: str, **options: Any) -> Any:
    """Say something to an Anthropic-like client."""
    messages = [{"role": "user", "content": text}]
    create = client.messages.create
    return await result(create(model=kind.model, max_tokens=99, messages=messages, **options))


async def test_chat_is_answered_and_streamed(client: Any, kind: Kind) -> None:
    """Whole and streamed, the chat has the fixture's text and its usage."""
    whole = await chat(client, kind, "hello")
    usage = {"include_usage": True}
    chunks = await collected(chat(client, kind, "hello", stream=True, stream_options=usage))

    streamed = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert (GREETING, "stop") == (whole.choices[0].message.content, whole.choices[0].finish_reason)
    assert GREETING == "".join(streamed)
    assert whole.usage.total_tokens == chunks[-1].usage.total_tokens


async def test_chat_calls_a_tool(client: Any, kind: Kind) -> None:
    """A tool's call has its name and arguments, whole and in fragments."""
    tools = [{"type": "function", "function": TOOL}]
    whole = await chat(client, kind, "weather", tools=tools)
    chunks = await collected(chat(client, kind, "weather", tools=tools, stream=True))

    (call,) = whole.choices[0].message.tool_calls
    deltas = [chunk.choices[0].delta.tool_calls for chunk in chunks]
    fragments = "".join(found[0].function.arguments for found in deltas if found)
    assert ("look_outside", {"city": "Oslo"}) == (
        call.function.name,
        json.loads(call.function.arguments),
    )
    assert {"city": "Oslo"} == json.loads(fragments)


async def test_models_are_listed(client: Any, kind: Kind) -> None:
    """The models are those that the server lists."""
    models = await result(client.models.list())

    assert "gpt-4" in [model.id for model in models.data]


@pytest.mark.parametrize("kind", EMBEDDING, ids=str, indirect=True)
async def test_embeddings_are_answered(client: Any, kind: Kind) -> None:
    """An embedding has the fixture's numbers."""
    create = client.embeddings.create
    answer = await result(create(model="anm-embed", input="one", encoding_format="float"))

    assert [0.5, -0.25, 0.125] == answer.data[0].embedding


async def test_an_error_is_read(client: Any, kind: Kind) -> None:
    """An error of the fixture has its class, message, code and request id."""
    with pytest.raises(kind.error("RateLimitError")) as caught:
        await chat(client, kind, "too much")

    raised: Any = caught.value
    assert (429, "rate_limit") == (raised.status_code, raised.code)
    assert "Slow down." in raised.message
    assert raised.request_id.startswith("req-")


async def test_an_unknown_question_is_an_error(client: Any, kind: Kind) -> None:
    """What no fixture answers is an error of the package."""
    with pytest.raises(kind.error("APIStatusError")):
        await chat(client, kind, "what nobody expects")


@pytest.mark.parametrize(("trouble", "error"), CHAOS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_chaos_is_an_error(
    client: Any, kind: Kind, trouble: str, error: str, streamed: bool
) -> None:
    """A request that is dropped, limited or cut off raises its class."""
    headers = {f"x-aimock-chaos-{trouble}": "1"}

    with pytest.raises(kind.error(error)):
        await chat(client, kind, "hello", stream=streamed, extra_headers=headers)


async def test_a_stream_that_is_cut_off_is_an_error(client: Any, kind: Kind) -> None:
    """A connection that ends in mid-stream raises, however much has arrived."""
    with pytest.raises(kind.error("APIConnectionError")):
        await collected(chat(client, kind, "cut me off", stream=True))


async def test_a_message_is_answered_and_streamed(
    anthropic_client: Any, anthropic_kind: Kind
) -> None:
    """Whole and streamed, the message has the fixture's text."""
    whole = await message(anthropic_client, anthropic_kind, "hello")
    events = await collected(message(anthropic_client, anthropic_kind, "hello", stream=True))

    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert (GREETING, "end_turn") == (whole.content[0].text, whole.stop_reason)
    assert GREETING == "".join(deltas)
    assert "message_stop" == events[-1].type


async def test_a_message_uses_a_tool(anthropic_client: Any, anthropic_kind: Kind) -> None:
    """A tool's use has its name and input."""
    tools = [{"name": "look_outside", "input_schema": {"type": "object"}}]
    whole = await message(anthropic_client, anthropic_kind, "weather", tools=tools)

    (used,) = whole.content
    assert ("tool_use", "look_outside", {"city": "Oslo"}) == (
        whole.stop_reason,
        used.name,
        used.input,
    )


@pytest.mark.parametrize(("trouble", "error"), CHAOS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_chaos_in_messages_is_an_error(
    anthropic_client: Any, anthropic_kind: Kind, trouble: str, error: str, streamed: bool
) -> None:
    """A message that is dropped, limited or cut off raises its class."""
    headers = {f"x-aimock-chaos-{trouble}": "1"}

    with pytest.raises(anthropic_kind.error(error)):
        await message(
            anthropic_client, anthropic_kind, "hello", stream=streamed, extra_headers=headers
        )
