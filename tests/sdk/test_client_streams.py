"""Streams of Animica's clients over real HTTP: whole, broken, left early, and added up."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from anyio import to_thread
from apiserver import Hold, Space, steps
from client_kinds import collected, items, result, until_open

from animica_hooks import errors
from animica_hooks.sdk import Animica, AsyncAnimica

CHAT: dict[str, Any] = {
    "model": "anm-fast-8b",
    "messages": [{"role": "user", "content": "Hello there"}],
}
SAID = "You said: Hello there"
SOON = steps.retry_after("milliseconds", 0.001)


@pytest.fixture(params=[Animica, AsyncAnimica])
def client(request: pytest.FixtureRequest, space: Space) -> Any:
    return request.param(space.key, base_url=space.animica, max_retries=0)


def text_of(chunks: list[Any]) -> str:
    """The text of typed or plain chunks."""
    plain = [chunk if isinstance(chunk, dict) else chunk.to_dict() for chunk in chunks]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in plain)


@pytest.mark.parametrize("size", [None, 1, 3, 1000])
async def test_a_stream_is_read_however_it_is_cut(
    client: Any, space: Space, size: int | None
) -> None:
    """Dicts from the flat method, objects from the resource; one connection serves all."""
    if size is not None:
        space.always(steps.rechunked(size))
    flat = await collected(client.chat_completions(**CHAT, stream=True))
    typed = await collected(client.chat.completions.create(**CHAT, stream=True))

    assert SAID == text_of(flat) == text_of(typed)
    assert SAID == "".join(chunk.choices[0].delta.content or "" for chunk in typed)
    assert 1 == len({request.connection for request in space.requests})
    await result(client.close())


async def test_text_completions_are_streamed(client: Any, space: Space) -> None:
    """The older method has streams, too."""
    prompt = {"model": "anm-fast-8b", "prompt": "Once"}
    flat = await collected(client.completions(**prompt, stream=True))
    typed = await collected(client.completions.create(**prompt, stream=True))

    joined = "".join(chunk.choices[0].text for chunk in typed)
    assert "Once" in joined
    assert joined == "".join(chunk["choices"][0]["text"] for chunk in flat)
    await result(client.close())


async def test_chunks_come_as_they_are_sent(client: Any, space: Space) -> None:
    """The first is here while the server still holds the second."""
    hold = Hold()
    space.script(steps.held(hold, after=1))
    stream = items(await result(client.chat.completions.create(**CHAT, stream=True)))
    first = await anext(stream)
    hold.release()

    assert SAID == text_of([first, *[chunk async for chunk in stream]])
    await result(client.close())


@pytest.mark.parametrize(
    "step", [steps.cut(3), steps.broken(3), steps.reset(3)], ids=["cut", "broken", "reset"]
)
@pytest.mark.parametrize("flat", [True, False])
async def test_a_stream_cut_short_is_an_error(
    client: Any, space: Space, step: Any, flat: bool
) -> None:
    """It has the text so far and the request id, whichever way the stream ended; no retry."""
    space.always(step)
    method = client.chat_completions if flat else client.chat.completions.create
    stream = await result(method(**CHAT, stream=True))
    seen: list[Any] = []

    async def follow() -> None:
        async for chunk in items(stream):
            seen.append(chunk)  # noqa: PERF401 - what came before the error is kept

    with pytest.raises(errors.StreamInterrupted) as caught:
        await follow()

    assert text_of(seen) == caught.value.partial_text
    assert SAID.startswith(caught.value.partial_text)
    assert caught.value.request_id is not None
    assert 1 == len(space.requests)
    await result(client.close())


async def test_a_stream_without_its_last_line_is_whole(client: Any, space: Space) -> None:
    """A finish reason ends a stream as well as [DONE]; so does [DONE] without its blank line."""
    space.script(
        steps.edited_events(lambda events: events[:-1]),
        steps.streamed('data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]'),
    )

    assert SAID == text_of(await collected(client.chat.completions.create(**CHAT, stream=True)))
    assert "a" == text_of(await collected(client.chat.completions.create(**CHAT, stream=True)))
    await result(client.close())


@pytest.mark.parametrize("flat", [True, False])
async def test_a_stream_ends_when_all_its_choices_have(
    client: Any, space: Space, flat: bool
) -> None:
    """Without [DONE], one finish reason of two choices is a stream that was cut short."""
    space.always(
        steps.streamed(
            'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
            'data: {"choices":[{"index":1,"delta":{"content":"b"}}]}\n\n',
            'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
        )
    )
    method = client.chat_completions if flat else client.chat.completions.create
    with pytest.raises(errors.StreamInterrupted) as caught:
        await collected(method(**CHAT, n=2, stream=True))

    assert "a" == caught.value.partial_text
    await result(client.close())


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.BadRequestError),
        (401, errors.AuthenticationError),
        (429, errors.RateLimitError),
        (500, errors.InternalServerError),
    ],
)
async def test_an_error_in_mid_stream_has_its_class(
    client: Any, space: Space, status: int, expected: type[Exception]
) -> None:
    """As if it had come as a status, with the text so far."""
    space.always(steps.failing(3, status, "It ends here."))
    with pytest.raises(expected, match="It ends here") as caught:
        await collected(client.chat.completions.create(**CHAT, stream=True))

    assert isinstance(caught.value, errors.APIStatusError)
    assert status == caught.value.status
    assert caught.value.partial_text
    assert caught.value.request_id is not None
    await result(client.close())


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ('event: error\ndata: {"error":{"type":"overloaded_error"}}', errors.OverloadedError),
        ('data: {"error":{"code":503,"message":"m"}}', errors.InternalServerError),
        ('data: {"error":{"code":"503","message":"m"}}', errors.InternalServerError),
        ('data: {"error":"m"}', errors.APIError),
        ("event: error\ndata: it broke", errors.APIError),
        ("data: {", errors.StreamInterrupted),
        ("data: [1]", errors.StreamInterrupted),
        ("data: <html>", errors.StreamInterrupted),
    ],
)
async def test_odd_errors_in_mid_stream_are_read(
    client: Any, space: Space, event: str, expected: type[Exception]
) -> None:
    """Named or not, strings, codes as numbers, no JSON: each is one of ours."""
    space.always(
        steps.streamed('data: {"choices":[{"delta":{"content":"a"}}]}\n\n', f"{event}\n\n")
    )
    for method in (client.chat_completions, client.chat.completions.create):
        with pytest.raises(errors.APIError) as caught:
            await collected(method(**CHAT, stream=True))

        assert expected is type(caught.value)
        assert "a" == caught.value.partial_text
    await result(client.close())


async def test_odd_chunks_are_no_errors(client: Any, space: Space) -> None:
    """``choices: null``, a comment, an event without choices, numbers for ids."""
    space.always(
        steps.streamed(
            ": keep-alive\n\n",
            'data: {"choices": null, "created": 1.5, "id": 7}\n\n',
            'data: {"choices": [{"index": null, "delta": {"content": "a", "x": 1}}]}\n\n',
            'data: {"choices": [{"index": 0, "delta": null, "finish_reason": "stop"}]}\n\n',
            "data: [DONE]\n\n",
        )
    )
    flat = await collected(client.chat_completions(**CHAT, stream=True))
    typed = await collected(client.chat.completions.create(**CHAT, stream=True))

    assert [3, 3] == [len(flat), len(typed)]
    assert ("7", 1, []) == (typed[0].id, typed[0].created, typed[0].choices)
    assert ("a", 1) == (typed[1].choices[0].delta.content, typed[1].choices[0].delta.x)
    await result(client.close())


async def test_what_is_no_stream_is_told(client: Any, space: Space) -> None:
    """JSON or HTML where a stream was asked for is an error, at once."""
    for kind in ("application/json", "text/html"):
        space.script(steps.reply("{}", content_type=kind))
        with pytest.raises(errors.APIResponseError, match="no stream") as caught:
            await result(client.chat_completions(**CHAT, stream=True))

        assert caught.value.request_id is not None
    await result(client.close())


async def test_before_it_begins_a_stream_is_tried_again(client: Any, space: Space) -> None:
    """Errors in the place of a stream's head are read and retried like others."""
    space.script(
        steps.error(503, headers=SOON), steps.reset(), steps.normal(), steps.error(400, "It is so.")
    )
    patient = client.with_options(max_retries=2)

    assert SAID == text_of(await collected(patient.chat_completions(**CHAT, stream=True)))
    with pytest.raises(errors.BadRequestError, match="It is so"):
        await result(client.chat_completions(**CHAT, stream=True))
    await result(client.close())


async def test_the_first_token_has_a_time_of_its_own(client: Any, space: Space) -> None:
    """Silence before it is a timeout; once it came, only the usual ones hold."""
    before, after = Hold(), Hold()
    space.script(steps.held(before, after=0), steps.held(after, after=2))
    with pytest.raises(errors.APITimeoutError) as caught:
        await collected(
            client.chat.completions.create(**CHAT, stream=True, first_token_timeout=0.1)
        )
    before.release()
    stream = items(
        await result(client.chat.completions.create(**CHAT, stream=True, first_token_timeout=0.5))
    )
    chunks = [await anext(stream), await anext(stream)]
    timer = threading.Timer(0.7, after.release)
    timer.start()
    chunks += [chunk async for chunk in stream]
    timer.join()

    assert "" == caught.value.partial_text
    assert SAID == text_of(chunks)
    await result(client.close())


async def test_silence_in_mid_stream_is_a_timeout(client: Any, space: Space) -> None:
    """With the text so far."""
    hold = Hold()
    space.script(steps.held(hold, after=3))
    with pytest.raises(errors.APITimeoutError) as caught:
        await collected(client.chat.completions.create(**CHAT, stream=True, timeout=0.1))
    hold.release()

    assert caught.value.partial_text
    assert caught.value.request_id is not None
    await result(client.close())


@pytest.mark.parametrize("begun", [True, False])
async def test_leaving_early_frees_the_connection(client: Any, space: Space, begun: bool) -> None:
    """``close()`` and the end of a ``with`` block, before or within the stream."""
    hold = Hold()
    space.always(steps.held(hold, after=2))
    stream = await result(client.chat.completions.create(**CHAT, stream=True))
    if begun:
        await anext(items(stream)) if hasattr(stream, "__anext__") else next(stream)
    await until_open(space, 1)
    await result(stream.close())

    await until_open(space, 0)
    await result(stream.close())
    assert [] == await collected(stream)
    await result(client.close())


async def test_a_stream_is_left_while_it_is_read(client: Any, space: Space) -> None:
    """Closed from another thread or task: the reader learns it at once, and nothing stays open."""
    hold = Hold()
    space.script(steps.held(hold, after=2))
    stream = await result(client.chat.completions.create(**CHAT, stream=True))
    if isinstance(client, Animica):
        reading = asyncio.create_task(to_thread.run_sync(list, stream))
    else:
        reading = asyncio.create_task(collected(stream))
    await to_thread.run_sync(hold.reached.wait)
    # The chunks before the hold have come; the reader waits for the next.
    while "You" not in stream.text:
        await asyncio.sleep(0.01)
    await result(stream.close())

    with pytest.raises(errors.StreamInterrupted) as caught:
        await asyncio.wait_for(reading, 10)
    assert "You" == caught.value.partial_text
    await until_open(space, 0)
    hold.release()
    assert "data" in await result(client.models())
    await result(client.close())


async def test_a_stream_that_is_forgotten_frees_its_connection(client: Any, space: Space) -> None:
    """What nobody holds is closed, be it begun or not."""
    hold = Hold()
    space.always(steps.held(hold, after=2))
    for begin in (False, True):
        stream = await result(client.chat_completions(**CHAT, stream=True))
        if begin:
            await stream.__anext__() if hasattr(stream, "__anext__") else next(stream)
        del stream
        gc.collect()
        await until_open(space, 0)
    await result(client.close())


async def test_helpers_add_up(client: Any, space: Space) -> None:
    """``stream()`` gives chunks or text, then the whole, with usage, as if not streamed."""
    helper = client.chat.completions.stream(**CHAT)
    if isinstance(client, Animica):
        with helper as stream:
            pieces = list(stream.text_stream)
            whole = stream.get_final_completion()
        with client.chat.completions.stream(**CHAT) as other:
            chunks = list(other)
            text = other.get_final_text()
    else:
        async with helper as stream:
            pieces = [piece async for piece in stream.text_stream]
            whole = await stream.get_final_completion()
        async with client.chat.completions.stream(**CHAT) as other:
            chunks = [chunk async for chunk in other]
            text = await other.get_final_text()

    assert (
        SAID
        == "".join(pieces)
        == whole.choices[0].message.content
        == text
        == text_of([chunk for chunk in chunks if chunk.choices])
    )
    assert ("assistant", "stop") == (whole.choices[0].message.role, whole.choices[0].finish_reason)
    assert whole.usage is stream.usage is not None
    assert whole.usage.total_tokens > 0
    assert stream.current_completion_snapshot is whole
    assert whole.request_id == stream.request_id is not None
    await result(client.close())


async def test_a_helper_begins_with_its_block(client: Any, space: Space) -> None:
    """Without one nothing is sent, and that is told."""
    helper = client.chat.completions.stream(**CHAT)
    with pytest.raises(errors.APIRequestError, match="begins with its block"):
        await result(helper.get_final_completion())

    assert [] == space.requests


async def test_tool_calls_add_up(client: Any, space: Space) -> None:
    """Their arguments come in pieces, by index, also interleaved; so do further choices."""
    delta = '{{"choices":[{{"index":{0},"delta":{1}}}]}}'
    parts = [
        (0, '{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}'),
        (0, '{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{"}}]}'),
        (0, '{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}'),
        (0, '{"tool_calls":[{"index":1,"function":{"arguments":"}"}}]}'),
        (1, '{"content":"x","reasoning_content":"r"}'),
        (1, '{"content":"y"}'),
    ]
    space.always(
        steps.streamed(
            *[f"data: {delta.format(i, part)}\n\n" for i, part in parts], "data: [DONE]\n\n"
        )
    )
    if isinstance(client, Animica):
        with client.chat.completions.stream(**CHAT) as stream:
            whole = stream.get_final_completion()
    else:
        async with client.chat.completions.stream(**CHAT) as stream:
            whole = await stream.get_final_completion()
    calls = whole.choices[0].message.tool_calls

    assert [("a", "f", "{}"), ("b", "g", "{}")] == [
        (call.id, call.function.name, call.function.arguments) for call in calls
    ]
    assert ("xy", "r") == (
        whole.choices[1].message.content,
        whole.choices[1].message.reasoning_content,
    )
    await result(client.close())
