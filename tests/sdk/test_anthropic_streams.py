"""Streams of Anthropic's clients over real HTTP: whole, broken, left early, and added up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from apiserver import Hold, Space, steps
from client_kinds import collected, items, result, until_open

from animica_hooks.sdk import anthropic

ASK: dict[str, Any] = {
    "model": "claude-3-opus",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello there"}],
}
SAID = "You said: Hello there"
PIECES = ["You", " said", ":", " Hello", " there"]
TOOL = {"name": "repeat", "input_schema": {"type": "object"}}
PROMPT: dict[str, Any] = {
    "model": "claude-2",
    "max_tokens_to_sample": 100,
    "prompt": f"{anthropic.HUMAN_PROMPT} Hello there{anthropic.AI_PROMPT}",
}
# The server's events before the first piece of text, a ping among them, and all of them.
BEFORE_TEXT = 3
ALL = BEFORE_TEXT + len(PIECES) + 3


@pytest.fixture(params=[anthropic.Anthropic, anthropic.AsyncAnthropic])
async def client(request: pytest.FixtureRequest, space: Space) -> AsyncIterator[Any]:
    made = request.param(space.key, base_url=space.anthropic, max_retries=0)
    yield made
    await result(made.close())


def sse(*events: dict[str, Any] | str, named: bool = True) -> steps.Step:
    """Stream these events; a text as it is."""
    return steps.streamed(
        *[
            event
            if isinstance(event, str)
            else (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
            for event in events
        ]
    )


def delta(index: Any, **fields: Any) -> dict[str, Any]:
    """An event that adds to a block."""
    return {"type": "content_block_delta", "index": index, "delta": fields}


def start(index: Any, **block: Any) -> dict[str, Any]:
    """An event that begins a block."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def begin(**fields: Any) -> dict[str, Any]:
    """The event that begins a message."""
    usage = {"input_tokens": 5, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    return {"type": "message_start", "message": {**message, "usage": usage, **fields}}


def end(reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    """The event that says why a message ended."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


STOP = {"type": "message_stop"}


def text_of(events: list[Any]) -> str:
    """The text of a stream's events."""
    return "".join(event.delta.text or "" for event in events)


async def followed(stream: Any, seen: list[Any]) -> None:
    """Read a stream into a list, as far as it goes."""
    async for item in items(stream):
        seen.append(item)  # noqa: PERF401 - what came before an error is kept


async def final(client: Any, look: Callable[[Any], None] | None = None, **options: Any) -> Any:
    """Return what the helper adds up to; ``look`` is shown the helper after each event."""
    helper = client.messages.stream(**{**ASK, **options})
    if isinstance(client, anthropic.Anthropic):
        with helper as stream:
            for _ in stream:
                _ = look and look(stream)
            return stream.get_final_message()
    async with helper as stream:
        async for _ in stream:
            _ = look and look(stream)
        return await stream.get_final_message()


@pytest.mark.parametrize("size", [None, 1, 3, 1000])
async def test_a_stream_is_read_however_it_is_cut(
    client: Any, space: Space, size: int | None
) -> None:
    """Events in their order, without pings; one connection serves all."""
    if size is not None:
        space.always(steps.rechunked(size))
    for _ in range(2):
        stream = await result(client.messages.create(**ASK, stream=True))
        events = await collected(stream)

        assert [
            "message_start",
            "content_block_start",
            *["content_block_delta"] * 5,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ] == [event.type for event in events]
        assert PIECES == [event.delta.text for event in events[2:7]]
        assert ("end_turn", 5) == (events[8].delta.stop_reason, events[8].usage.output_tokens)
        assert (SAID, 200) == (stream.text, stream.status_code)
        assert stream.request_id.startswith("req_")
    assert 1 == len({request.connection for request in space.requests})


@pytest.mark.parametrize("after", range(ALL - 2))
@pytest.mark.parametrize("how", [steps.cut, steps.broken, steps.reset])
async def test_a_stream_cut_short_has_the_text_so_far(
    client: Any, space: Space, how: Any, after: int
) -> None:
    """Wherever and however it ended before its stop reason; it is not tried again."""
    space.always(how(after))
    seen: list[Any] = []

    async def ask() -> None:
        patient = client.with_options(max_retries=2)
        await followed(await result(patient.messages.create(**ASK, stream=True)), seen)

    with pytest.raises(anthropic.StreamInterrupted) as caught:
        await ask()

    assert text_of(seen) == caught.value.partial_text
    if how is not steps.reset:
        # A reset may overtake what was sent before it.
        assert "".join(PIECES[: max(0, after - BEFORE_TEXT)]) == caught.value.partial_text
    assert caught.value.request_id is not None
    assert 1 == len(space.requests)


async def test_a_stop_reason_ends_a_message(client: Any, space: Space) -> None:
    """Servers that leave out ``message_stop``, or its last line, have said all the same."""
    space.script(steps.cut(ALL - 1), sse(begin(), delta(0, text="a"), "data: {}\n\n", STOP))
    space.script(steps.streamed('data: {"type": "message_stop"}'))

    assert SAID == text_of(await collected(client.messages.create(**ASK, stream=True)))
    assert "a" == text_of(await collected(client.messages.create(**ASK, stream=True)))
    assert 1 == len(await collected(client.messages.create(**ASK, stream=True)))


async def test_news_of_a_message_are_not_its_end(client: Any, space: Space) -> None:
    """Usage may be told before there is a stop reason."""
    space.script(sse(begin(), delta(0, text="a"), end(None, output_tokens=1)))
    with pytest.raises(anthropic.StreamInterrupted) as caught:
        await collected(client.messages.create(**ASK, stream=True))

    assert "a" == caught.value.partial_text


async def test_the_stop_is_the_end(client: Any, space: Space) -> None:
    """What a server still holds open after it, or sends, is not waited for."""
    hold = Hold()
    space.script(steps.held(hold, after=ALL), sse(begin(), end(), STOP, delta(0, text="late")))
    events = await collected(client.messages.create(**ASK, stream=True))
    hold.release()
    others = await collected(client.messages.create(**ASK, stream=True))

    assert (SAID, "message_stop") == (text_of(events), events[-1].type)
    assert ["message_start", "message_delta", "message_stop"] == [event.type for event in others]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (413, anthropic.RequestTooLargeError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.OverloadedError),
    ],
)
async def test_an_error_event_has_its_class(
    client: Any, space: Space, status: int, expected: type[anthropic.APIError]
) -> None:
    """As if it had come as a status; messages, completions and the helper alike."""
    space.always(steps.failing(BEFORE_TEXT + 2, status, "It ends here."))
    for ask in (
        lambda: collected(client.messages.create(**ASK, stream=True)),
        lambda: collected(client.completions.create(**PROMPT, stream=True)),
        lambda: final(client),
    ):
        with pytest.raises(expected, match="It ends here") as caught:
            await ask()

        assert (expected, status) == (type(caught.value), caught.value.status)
        assert caught.value.partial_text.strip().startswith("You said")
        assert caught.value.request_id is not None


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ('data: {"type":"error","error":{"type":"overloaded_error"}}', anthropic.OverloadedError),
        ('data: {"error":{"type":"rate_limit_error"}}', anthropic.RateLimitError),
        ('event: error\ndata: {"type":"error"}', anthropic.APIError),
        ("event: error\ndata: it broke", anthropic.APIError),
        ('data: {"type":"error"}', anthropic.APIError),
        ("event: message_delta\ndata: {", anthropic.StreamInterrupted),
        ("data: [1]", anthropic.StreamInterrupted),
        ("data: <html>", anthropic.StreamInterrupted),
        ("data: " + '{"a":' * 5000 + "1" + "}" * 5000, anthropic.StreamInterrupted),
    ],
)
async def test_odd_errors_in_mid_stream_are_read(
    client: Any, space: Space, event: str, expected: type[anthropic.APIError]
) -> None:
    """Named or not, without an error in it, no JSON: each is one of ours."""
    text = {"type": "completion", **delta(0, text="a"), "completion": "a"}
    for create, asked in ((client.messages.create, ASK), (client.completions.create, PROMPT)):
        space.script(sse(text, f"{event}\n\n"))
        with pytest.raises(anthropic.APIError) as caught:
            await collected(create(**asked, stream=True))

        assert (expected, "a") == (type(caught.value), caught.value.partial_text)


async def test_an_unknown_event_is_kept(client: Any, space: Space) -> None:
    """With its type and all its fields; a ping never is, named or not."""
    newer = {"type": "weather_changed", "to": {"rain": [1]}, "index": 3}
    space.always(
        sse(
            begin(),
            "event: ping\ndata: {}\n\n",
            "event: ping\ndata: pong\n\n",
            'data: {"type": "ping"}\n\n',
            ": comment\n\n",
            newer,
            delta(0, type="newer_delta", mood="good"),
            end(),
            STOP,
        )
    )
    events = await collected(client.messages.create(**ASK, stream=True))
    message = await final(client)

    assert ["message_start", "weather_changed", "content_block_delta", "message_delta"] == [
        event.type for event in events[:4]
    ]
    assert ({"rain": [1]}, 3, newer) == (events[1].to, events[1].index, events[1].to_dict())
    assert "good" == events[2].delta.mood == message.content[0].mood


@pytest.mark.parametrize("named", [True, False])
async def test_a_name_or_a_type_is_enough(client: Any, space: Space, named: bool) -> None:
    """Servers that leave out one of the two are understood."""
    events = [begin(), start(0, type="text", text="A"), delta(0, text="b"), end(), STOP]
    if named:
        untyped = [
            f"event: {event['type']}\ndata: "
            + json.dumps({name: value for name, value in event.items() if name != "type"})
            + "\n\n"
            for event in events
        ]
        space.always(sse(*untyped))
    else:
        space.always(sse(*events, named=False))
    stream = await result(client.messages.create(**ASK, stream=True))
    read = await collected(stream)
    message = await final(client)

    assert [event["type"] for event in events] == [event.type for event in read]
    assert "Ab" == stream.text == message.content[0].text


async def test_helpers_add_up(client: Any, space: Space) -> None:
    """``stream()`` gives events or text, then the message, as if it had not been streamed."""
    whole = await result(client.messages.create(**ASK))
    texts: list[str] = []
    if isinstance(client, anthropic.Anthropic):
        with client.messages.stream(**ASK) as stream:
            texts = list(stream.text_stream)
            message = stream.get_final_message()
        with client.messages.stream(**ASK) as other:
            first = next(other)
            text = other.get_final_text()
    else:
        async with client.messages.stream(**ASK) as stream:
            texts = [piece async for piece in stream.text_stream]
            message = await stream.get_final_message()
        async with client.messages.stream(**ASK) as other:
            first = await anext(other)
            text = await other.get_final_text()

    def without_id(found: Any) -> dict[str, Any]:
        return {name: value for name, value in found.to_dict().items() if name != "id"}

    assert (PIECES, SAID, "message_start") == (texts, text, first.type)
    assert without_id(whole) == without_id(message)
    assert (whole.usage, whole.content) == (message.usage, message.content)
    assert message.request_id == stream.request_id == message.response_headers["request-id"]
    assert (2, 5) == (stream.usage.input_tokens, stream.usage.output_tokens)


async def test_the_message_so_far_is_seen(client: Any, space: Space) -> None:
    """At any time, also after the stream broke off."""
    space.script(steps.cut(BEFORE_TEXT + 2))
    seen: list[str] = []
    helpers: list[Any] = []

    def look(stream: Any) -> None:
        helpers.append(stream)
        content = stream.current_message_snapshot.content
        seen.append(content[0].text if content else "-")

    with pytest.raises(anthropic.StreamInterrupted):
        await final(client, look)

    assert ["-", "", "You", "You said"] == seen
    message = helpers[-1].current_message_snapshot
    assert ("You said", None, 2) == (
        message.content[0].text,
        message.stop_reason,
        message.usage.input_tokens,
    )


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_tools_input_adds_up(client: Any, space: Space, size: int) -> None:
    """Its JSON comes in pieces, however these are cut."""
    space.script(steps.rechunked(size))
    message = await final(client, tools=[TOOL])

    assert [("tool_use", "repeat", {"text": "Hello there"}, None)] == [
        (block.type, block.name, block.input, block.partial_json) for block in message.content
    ]
    assert "tool_use" == message.stop_reason


async def test_blocks_of_all_kinds_add_up(client: Any, space: Space) -> None:
    """Thinking with its signature, text with citations, tools side by side, and what is newer."""
    thinking = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
    result_block = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"u": 1}]}
    space.script(
        sse(
            begin(container={"id": "c"}, newer=1),
            start(0, type="thinking", thinking="", signature=""),
            delta(0, type="thinking_delta", thinking="Let me "),
            delta(0, type="thinking_delta", thinking="see."),
            delta(0, type="signature_delta", signature="c2ln"),
            start(1, **thinking),
            start(2, type="text", text=""),
            delta(2, type="text_delta", text="One"),
            delta(2, type="citations_delta", citation={"cited_text": "x"}),
            start(3, type="tool_use", id="a", name="f", input={}),
            start(4, type="tool_use", id="b", name="g", input={}, caller="me"),
            delta(3, type="input_json_delta", partial_json=""),
            delta(4, type="input_json_delta", partial_json='{"x": [1,'),
            delta(3, type="input_json_delta", partial_json="{}"),
            delta(4, type="input_json_delta", partial_json=" 2]}"),
            start(5, **result_block),
            start(6, type="text", text=""),
            delta(6, type="text_delta", text="Two"),
            start(7, type="tool_use", id="c", name="h", input={}),
            delta(7, type="input_json_delta", partial_json=""),
            end("pause_turn", output_tokens=9, server_tool_use={"web_search_requests": 1}),
            end(None, input_tokens=6, output_tokens=12),
            STOP,
        )
    )
    message = await final(client)

    assert [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        thinking,
        {"type": "text", "text": "One", "citations": [{"cited_text": "x"}]},
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        {"type": "tool_use", "id": "b", "name": "g", "caller": "me", "input": {"x": [1, 2]}},
        result_block,
        {"type": "text", "text": "Two"},
        {"type": "tool_use", "id": "c", "name": "h", "input": {}},
    ] == message.to_dict()["content"]
    assert ({"id": "c"}, 1, "pause_turn") == (message.container, message.newer, message.stop_reason)
    assert (6, 12) == (message.usage.input_tokens, message.usage.output_tokens)
    tools = message.usage.server_tool_use
    assert tools is not None
    assert ({"web_search_requests": 1}, 1) == (tools.to_dict(), tools.web_search_requests)


async def test_an_input_that_is_not_whole_is_kept(client: Any, space: Space) -> None:
    """A message that was stopped within it has what came, and no made-up input."""
    space.always(
        sse(
            begin(),
            start(0, type="tool_use", id="a", name="f", input={}),
            delta(0, type="input_json_delta", partial_json='{"x": "y'),
            end("max_tokens"),
            STOP,
        )
    )
    (block,) = (await final(client)).content

    assert ({}, '{"x": "y') == (block.input, block.partial_json)


@pytest.mark.parametrize("depth", [*range(300, 1100, 100), 100_000])
async def test_an_input_of_any_depth_is_read_or_told(client: Any, space: Space, depth: int) -> None:
    """What Python can not nest is kept as it came, or is an error of ours."""
    nested = "[" * depth + "]" * depth
    tool = start(0, type="tool_use", id="a", name="f", input={})
    space.always(sse(begin(), tool, delta(0, partial_json=nested), end("tool_use"), STOP))
    try:
        (block,) = (await final(client)).content
    except anthropic.APIResponseError as error:
        read = "nested too deeply" in error.message
    else:
        read = block.partial_json == nested or json.dumps(block.input) == nested

    assert read


async def test_odd_events_are_no_errors(client: Any, space: Space) -> None:
    """Nulls, texts for numbers, halves of characters, blocks that never began."""
    space.always(
        sse(
            "data: {}\n\n",
            {"type": "message_start", "message": None},
            start(None, type="text", text=None),
            delta("0", type="text_delta", text="a"),
            delta("x", type="text_delta", text="b"),
            delta(0, type="text_delta", text=["x"]),
            delta(2, type="text_delta", text="\ud83d"),
            delta(2, type="text_delta", text="\ude00"),
            start(3, type="text", text="c", citations=5),
            delta(3, type="citations_delta", citation={"cited_text": "x"}),
            {"type": "content_block_delta", "index": 0, "delta": None},
            {"type": "content_block_delta", "index": 0, "delta": {"text": 5, "type": 6}},
            'data: {"type": "message_delta", "usage": {"output_tokens": NaN}}\n\n',
            end(),
            STOP,
        )
    )
    stream = await result(client.messages.create(**ASK, stream=True))
    events = await collected(stream)
    message = await final(client)

    assert (15, "ab\ud83d\ude00c5") == (len(events), stream.text)
    assert ["ab5", "\U0001f600", "c"] == [block.text for block in message.content]
    (citation,) = message.content[2].citations or ()
    assert ({"cited_text": "x"}, "x") == (citation.to_dict(), citation.cited_text)
    assert ("end_turn", "") == (message.stop_reason, message.id)


async def test_a_helper_begins_with_its_block(client: Any, space: Space) -> None:
    """Without one nothing is sent, and that is told."""
    helper = client.messages.stream(**ASK)
    with pytest.raises(anthropic.APIRequestError, match="begins with its block"):
        await result(helper.get_final_message())
    await result(helper.close())

    assert [] == space.requests


@pytest.mark.parametrize("helped", [True, False])
async def test_leaving_early_frees_the_connection(client: Any, space: Space, helped: bool) -> None:
    """The end of the block, or ``close()``, in mid-stream."""
    space.always(steps.held(Hold(), after=BEFORE_TEXT + 1))
    if not helped:
        stream = await result(client.messages.create(**ASK, stream=True))
        await anext(items(stream))
        await until_open(space, 1)
        await result(stream.close())
    elif isinstance(client, anthropic.Anthropic):
        with client.messages.stream(**ASK) as helper:
            assert "You" == next(iter(helper.text_stream))
            await until_open(space, 1)
    else:
        async with client.messages.stream(**ASK) as helper:
            assert "You" == await anext(helper.text_stream)
            await until_open(space, 1)

    await until_open(space, 0)


async def test_older_completions_are_streamed(client: Any, space: Space) -> None:
    """Increments up to the stop reason; pings are left out."""
    stream = await result(client.completions.create(**PROMPT, stream=True))
    increments = await collected(stream)

    assert f" {SAID}" == "".join(part.completion for part in increments) == stream.text
    assert ("stop_sequence", None) == (increments[-1].stop_reason, increments[-2].stop_reason)
    assert {"completion"} == {part.type for part in increments}


@pytest.mark.parametrize("how", [steps.cut, steps.broken])
async def test_an_older_completion_cut_short_has_the_text_so_far(
    client: Any, space: Space, how: Any
) -> None:
    """Without its stop reason it is not whole."""
    space.always(how(4))
    with pytest.raises(anthropic.StreamInterrupted) as caught:
        await collected(client.completions.create(**PROMPT, stream=True))

    assert " You said:" == caught.value.partial_text
    assert caught.value.request_id is not None
