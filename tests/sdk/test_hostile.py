"""Servers that mean harm, or know no better: bounded memory, and no error but ours."""

from __future__ import annotations

import pickle
from typing import Any

import httpx
import pytest
from apiserver import Space, steps
from client_kinds import collected, result

from animica_hooks import errors
from animica_hooks.sdk import Animica, AsyncAnimica, transports
from animica_hooks.sdk.endpoint import decoder
from animica_hooks.sdk.transports.wire import Reply

CHAT: dict[str, Any] = {"model": "anm-fast-8b", "messages": [{"role": "user", "content": "Hi"}]}
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=[Animica, AsyncAnimica])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def chunk(**choice: str) -> str:
    """A chunk of a stream, of fields that are JSON already."""
    fields = ",".join(f'"{name}":{value}' for name, value in choice.items())
    return f'data: {{"choices":[{{{fields}}}]}}\n\n'


def test_trailers_are_no_headers() -> None:
    """They are passed over: none replaces what the head said, and none is kept."""
    reply = Reply()
    reply.feed(CHUNKED.replace(b"\r\n\r\n", b"\r\nX-Request-Id: good\r\n\r\n") + b"1\r\na\r\n0\r\n")
    for _ in range(1000):
        reply.feed(b"X-Request-Id: bad\r\n")
    reply.feed(b"\r\n")

    assert (True, b"a") == (reply.complete, reply.take())
    assert [b"chunked", b"good"] == [value for _, value in reply.headers]


def _feed_on(reply: Reply, more: bytes) -> None:
    for _ in range(1000):
        reply.feed(more)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (OK + b"\r\n", b"a" * 100),
        (OK + b"Content-Length: 9223372036854775807\r\n\r\n", b"a" * 100),
        (CHUNKED + b"5;", b"a" * 100),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"X: b\r\n" * 10),
    ],
)
def test_an_answer_without_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, head: bytes, more: bytes
) -> None:
    """Be it the body, the extension of a chunk, or trailers that do not end."""
    monkeypatch.setattr(transports, "MAX_HELD_BYTES", 10_000)
    reply = Reply()
    reply.feed(head)

    with pytest.raises(errors.APIResponseError, match="does not end"):
        _feed_on(reply, more)


@pytest.mark.parametrize("more", [b"0\r\nX: ", b"0\r\nX", b"5;"])
def test_what_is_no_body_has_a_largest_size(more: bytes) -> None:
    """Of one trailer or extension of a chunk, too: the parser takes ever longer for each piece."""
    reply = Reply()
    reply.feed(CHUNKED + b"1\r\na\r\n" + more)
    with pytest.raises(errors.APIResponseError, match="no more of its body"):
        _feed_on(reply, b"a" * 1000)


def test_a_stream_has_no_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken is not held any more."""
    monkeypatch.setattr(transports, "MAX_HELD_BYTES", 1000)
    reply = Reply()
    reply.feed(OK + b"\r\n")

    for _ in range(100):
        reply.feed(b"a" * 900)
        assert 900 == len(reply.take())


async def test_compression_can_not_fill_the_memory(
    kind: Any, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of httpx unpacks what it gets: a little of that may become a lot."""
    monkeypatch.setattr(transports, "MAX_HELD_BYTES", 100_000)
    space.reply = "a" * 1_000_000
    space.always(steps.compressed())
    own = httpx.Client() if kind is Animica else httpx.AsyncClient()
    client = kind(space.key, base_url=space.animica, http_client=own, max_retries=0)

    with pytest.raises(errors.APIResponseError, match="larger"):
        await result(client.chat_completions(**CHAT))
    assert len(await collected(client.chat_completions(**CHAT, stream=True))) > 1
    own.close() if kind is Animica else await own.aclose()


@pytest.mark.parametrize(
    "error", ['{"code":"' + "9" * 5000 + '"}', '{"code":"0500"}', '{"code":"٥٠٠"}']
)
async def test_a_code_that_is_no_status_is_none(kind: Any, space: Space, error: str) -> None:
    """However many digits it has, an error event is an error of ours."""
    space.always(steps.streamed(f'data: {{"error":{error}}}\n\n'))
    client = kind(space.key, base_url=space.animica)

    with pytest.raises(errors.APIError) as caught:
        await collected(client.chat_completions(**CHAT, stream=True))
    assert None is caught.value.status
    await result(client.close())


async def test_odd_chunks_add_up(kind: Any, space: Space) -> None:
    """A place that is none, and a call's arguments as an object, as some servers have them."""
    call = '[{"index":0,"function":{"name":"f","arguments":{"a":1}}}]'
    space.always(
        steps.streamed(
            chunk(index='{"a":1}', delta='{"content":"a"}'),
            chunk(index="0", delta=f'{{"tool_calls":{call}}}'),
            chunk(index="0", delta='{"content":"b"}', finish_reason='"stop"'),
            "data: [DONE]\n\n",
        )
    )
    client = kind(space.key, base_url=space.animica)
    helper = client.chat.completions.stream(**CHAT)
    if kind is Animica:
        with helper as stream:
            whole = stream.get_final_completion()
    else:
        async with helper as stream:
            whole = await stream.get_final_completion()

    (message,) = [choice.message for choice in whole.choices]
    assert ("ab", {"a": 1}) == (message.content, message.tool_calls[0].function.arguments)
    await result(client.close())


@pytest.mark.parametrize(
    "sent",
    [b'{"id":"1","\xff":2}', b'{"id":"1","x":"\xff"}', b'{"id":"1","x":' + b"9" * 5000 + b"}"],
)
def test_unknown_fields_of_any_kind_are_read(sent: bytes) -> None:
    """What the typed part of an answer passed over raises nothing when it is looked at."""
    answer = decoder("openai.ChatCompletion")(sent)

    assert "1" == answer.to_dict()["id"]
    assert 1 == len(answer.extra)
    assert not hasattr(answer, "missing")


@pytest.mark.parametrize(
    "step",
    [
        steps.reply("{", headers={"set-cookie": "COOKIE_CANARY"}),
        steps.reply({}, status=400, headers={"set-cookie": "COOKIE_CANARY"}),
        steps.raw(OK + b"Set-Cookie: COOKIE_CANARY\r\nContent-Length: 9\r\n\r\n{"),
    ],
)
async def test_cookies_are_in_no_error(kind: Any, space: Space, step: Any) -> None:
    """Whichever way an answer fails; its other headers are there, by name in any case."""
    space.always(step)
    client = kind(space.key, base_url=space.animica, max_retries=0)
    with pytest.raises(errors.APIError) as caught:
        await result(client.chat_completions(**CHAT))
    await result(client.close())

    assert "Content-Length" in caught.value.headers
    assert b"COOKIE_CANARY" not in pickle.dumps(caught.value)
    assert "Set-Cookie" not in caught.value.headers


async def test_cookies_are_in_no_error_of_a_stream(kind: Any, space: Space) -> None:
    """Nor in what is pickled of a result."""
    cookie = {"set-cookie": "COOKIE_CANARY"}
    space.script(
        steps.reply("data: x", content_type="text/event-stream", headers=cookie),
        steps.reply({"id": "1"}, headers=cookie),
    )
    client = kind(space.key, base_url=space.animica)
    with pytest.raises(errors.StreamInterrupted) as caught:
        await collected(client.chat_completions(**CHAT, stream=True))
    answer = await result(client.chat.completions.create(**CHAT))
    await result(client.close())

    assert b"COOKIE_CANARY" not in pickle.dumps((caught.value, answer))
