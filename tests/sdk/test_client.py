"""Animica's clients over real HTTP, the sync and the async one through the same paces."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from typing import Any

import pytest
from apiserver import Hold, Space, steps
from client_kinds import collected, result

from animica_hooks import errors
from animica_hooks.sdk import Animica, AnimicaError, APIError, AsyncAnimica
from animica_hooks.sdk.answer import RawResponse

CHAT: dict[str, Any] = {
    "model": "anm-fast-8b",
    "messages": [{"role": "user", "content": "Hello there"}],
}
SAID = "You said: Hello there"
SOON = steps.retry_after("milliseconds", 0.001)


@pytest.fixture(params=[Animica, AsyncAnimica])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def made(kind: Any, space: Space, **options: Any) -> AsyncIterator[Any]:
    """A client of this space, closed at the end."""
    client = kind(space.key, **{"base_url": space.animica, **options})
    try:
        yield client
    finally:
        await result(client.close())


async def test_flat_methods_return_dicts(kind: Any, space: Space) -> None:
    """Animica's own five methods, as in its document."""
    async with made(kind, space) as client:
        chat = await result(client.chat_completions(**CHAT))
        text = await result(client.completions(model="anm-fast-8b", prompt="Once"))
        vectors = await result(client.embeddings(model="anm-embed", input=["a", "b"]))
        models = await result(client.models())
        usage = await result(client.usage())

    assert [dict] * 5 == [type(found) for found in (chat, text, vectors, models, usage)]
    assert SAID == chat["choices"][0]["message"]["content"]
    assert "Once" in text["choices"][0]["text"]
    assert [0, 1] == [item["index"] for item in vectors["data"]]
    assert "anm-embed" in [found["id"] for found in models["data"]]
    assert {"totalSpentUsd", "count"} <= usage.keys()


async def test_resources_return_typed_objects(kind: Any, space: Space) -> None:
    """The same, as attributes, with the API's id of the request."""
    async with made(kind, space) as client:
        chat = await result(client.chat.completions.create(**CHAT))
        text = await result(client.completions.create(model="anm-fast-8b", prompt="Once"))
        vectors = await result(client.embeddings.create(model="anm-embed", input="a"))
        models = await result(client.models.list())
        usage = await result(client.usage.list())

    assert SAID == chat.choices[0].message.content
    assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens
    assert "Once" in text.choices[0].text
    assert all(isinstance(number, float) for number in vectors.data[0].embedding)
    assert "anm-embed" in [found.id for found in models.data]
    assert usage.count >= 0
    ids = [found.request_id for found in (chat, text, vectors, models, usage)]
    assert all(found.startswith("req_") for found in ids)
    assert len({*ids}) == 5
    assert (chat.request_id, chat.to_dict()) == (copy(chat).request_id, copy(chat).to_dict())


@pytest.mark.parametrize("raw", [True, False])
async def test_embeddings_are_asked_for_as_numbers(kind: Any, space: Space, raw: bool) -> None:
    """Not every compatible server has base64; who asks for it gets it."""
    async with made(kind, space) as client:
        resource = client.embeddings.with_raw_response if raw else client.embeddings
        await result(resource.create(model="anm-embed", input="a"))
        await result(resource.create(model="anm-embed", input="a", encoding_format="base64"))

    assert ["float", "base64"] == [sent.json["encoding_format"] for sent in space.requests]


async def test_what_is_sent(kind: Any, space: Space) -> None:
    """Key, JSON, what is unknown; None is left out; extra body, query and headers are added."""
    async with made(kind, space, default_headers={"X-A": "1"}, default_query={"q": [1, 2]}) as own:
        await result(
            own.chat_completions(
                **CHAT,
                temperature=None,
                top_k=5,
                extra_body={"model": "anm-pro-70b", "more": None},
                extra_headers={"X-B": "2", "X-A": None},
                extra_query={"r": True},
            )
        )
    sent = space.last

    assert {
        "model": "anm-pro-70b",
        "messages": CHAT["messages"],
        "top_k": 5,
        "more": None,
    } == sent.json
    assert f"Bearer {space.key}" == sent.header("authorization")
    assert "application/json" == sent.header("content-type")
    assert ("2", False) == (sent.header("x-b"), sent.has("x-a"))
    assert "q=1&q=2&r=true" == sent.query


async def test_options_of_a_copy_leave_the_client_alone(kind: Any, space: Space) -> None:
    """``with_options`` shares the connections, and what was seen on them."""
    space.script(steps.error(500, headers=SOON), steps.normal())
    async with made(kind, space, max_retries=0) as client:
        copy = client.with_options(max_retries=1, default_headers={"X-A": "1"})
        await result(copy.models())
        await result(client.models())

        assert 3 == len(space.requests)
        assert (True, False) == (space.requests[1].has("x-a"), space.requests[2].has("x-a"))
        assert 1 == len({request.connection for request in space.requests})
        assert client.rate_limit == copy.rate_limit


async def test_retries_carry_one_idempotency_key(kind: Any, space: Space) -> None:
    """Each attempt of a call has the same key, each call another; the work is done once."""
    space.script(steps.truncated(), steps.hung_up(), steps.normal())
    async with made(kind, space) as client:
        found = await result(client.chat_completions(**CHAT))
        await result(client.chat_completions(**CHAT, idempotency_key="order-12345"))
    keys = [request.header("idempotency-key") for request in space.requests]

    assert SAID == found["choices"][0]["message"]["content"]
    assert keys[0] == keys[1] == keys[2] != keys[3] == "order-12345"
    assert 2 == space.executed


async def test_reads_have_no_idempotency_key(kind: Any, space: Space) -> None:
    """A GET is safe to repeat as it is."""
    space.script(steps.reset(), steps.normal())
    async with made(kind, space) as client:
        await result(client.models())

    assert [False, False] == [request.has("idempotency-key") for request in space.requests]


ERRORS = [
    (400, errors.BadRequestError),
    (401, errors.AuthenticationError),
    (402, errors.InsufficientCreditsError),
    (403, errors.PermissionDeniedError),
    (404, errors.NotFoundError),
    (408, errors.RequestTimeoutError),
    (409, errors.ConflictError),
    (413, errors.RequestTooLargeError),
    (418, errors.APIStatusError),
    (422, errors.UnprocessableEntityError),
    (429, errors.RateLimitError),
    (500, errors.InternalServerError),
    (503, errors.InternalServerError),
    (529, errors.OverloadedError),
]


@pytest.mark.parametrize(("status", "expected"), ERRORS)
async def test_each_status_is_an_error_of_its_own(
    kind: Any, space: Space, status: int, expected: type[APIError]
) -> None:
    """All are ``AnimicaError`` with status, type, code, param, message and request id."""
    space.script(steps.error(status, "It is so.", type="kind_of", code="a_code", param="model"))
    async with made(kind, space, max_retries=0) as client:
        with pytest.raises(AnimicaError) as caught:
            await result(client.chat_completions(**CHAT))
    error = caught.value

    assert expected is type(error)
    assert (status, "kind_of", "a_code", "model", "It is so.") == (
        error.status,
        error.type,
        error.code,
        error.param,
        error.message,
    )
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert isinstance(error, errors.APIStatusError)
    assert (status, error.body) == (error.response.status_code, error.response.body)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"message": "m", "code": 429}}, "m", "429"),
        ({"error": "m"}, "m", None),
        ({"message": "m", "code": "c"}, "m", "c"),
        ({"detail": "m"}, "m", None),
        ({"error": None}, "the API answered with status 400", None),
        ([], "the API answered with status 400", None),
        ("plain m", "plain m", None),
        (b"\xff\xfe", "\ufffd\ufffd", None),
        ("", "the API answered with status 400", None),
        ({"error": {"message": {"a": 1}, "type": ["x"]}}, "the API answered with status 400", None),
    ],
)
async def test_errors_of_other_shapes_are_read(
    kind: Any, space: Space, body: Any, message: str, code: str | None
) -> None:
    """Strings, integer codes, other keys, HTML, nothing: never another exception."""
    space.script(steps.reply(body, status=400))
    async with made(kind, space) as client:
        with pytest.raises(errors.BadRequestError) as caught:
            await result(client.chat_completions(**CHAT))

    assert (message, code) == (caught.value.message, caught.value.code)


@pytest.mark.parametrize(
    "step",
    [
        steps.reply("<html>", content_type="text/html"),
        steps.reply('{"id": "x"'),
        steps.reply(b"\xff"),
        steps.reply(b""),
        steps.reply("[1]"),
        steps.reply("null"),
    ],
)
async def test_an_answer_that_is_not_usable_is_told(kind: Any, space: Space, step: Any) -> None:
    """Not JSON, or no object: ``APIResponseError`` with the request id, for dicts and objects."""
    space.always(step)
    async with made(kind, space) as client:
        for call in (client.chat_completions, client.chat.completions.create):
            with pytest.raises(errors.APIResponseError) as caught:
                await result(call(**CHAT))

            assert caught.value.request_id is not None
            assert 200 == caught.value.status
    assert 2 == len(space.requests)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (steps.truncated(), errors.APIResponseError),
        (steps.broken(0), errors.APIResponseError),
        (steps.hung_up(), errors.APIConnectionError),
        (steps.reset(), errors.APIConnectionError),
        (steps.reset(0), errors.APIResponseError),
        (steps.raw(b"SSH-2.0-OpenSSH\r\n"), errors.APIConnectionError),
        (
            steps.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            None,
        ),
    ],
)
async def test_connections_that_break_are_told(
    kind: Any, space: Space, step: Any, expected: type[APIError] | None
) -> None:
    """Every way for an answer not to come is one of two errors, after all retries."""
    space.always(step)
    async with made(kind, space, max_retries=1) as client:
        with pytest.raises(APIError) as caught:
            await result(client.chat_completions(**CHAT))

    assert expected in (None, type(caught.value))
    assert 2 == len(space.requests)
    if expected is errors.APIResponseError:
        assert caught.value.request_id is not None
    if expected is errors.APIConnectionError:
        assert None is caught.value.status


async def test_nobody_listening_is_a_connection_error(kind: Any, space: Space) -> None:
    """Refused connections name what happened, with the system's error as their cause."""
    async with made(kind, space, base_url="http://127.0.0.1:1/v1", max_retries=0) as client:
        with pytest.raises(errors.APIConnectionError, match="could not connect") as caught:
            await result(client.models())

    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("after", [None, 0])
async def test_silence_is_a_timeout(kind: Any, space: Space, after: int | None) -> None:
    """Before the head and within the body alike; and the server's patience is not needed."""
    hold = Hold()
    space.always(steps.held(hold, after=after))
    async with made(kind, space, timeout=0.1, max_retries=1) as client:
        with pytest.raises(errors.APITimeoutError):
            await result(client.chat_completions(**CHAT))
    hold.release()

    assert 2 == len(space.requests)


async def test_a_deadline_ends_a_body_that_drips(kind: Any, space: Space) -> None:
    """Bytes that keep coming keep each read in time, and the whole is too late all the same."""
    space.always(steps.paced(0.2))
    space.reply = "many words " * 50

    async def ask(client: Any) -> None:
        answer = await result(client.chat_completions(**CHAT, deadline=0.3, stream=True))
        await collected(answer)

    async with made(kind, space, timeout=5, max_retries=3) as client:
        began = time.monotonic()
        with pytest.raises(errors.APITimeoutError, match="deadline"):
            await ask(client)

    assert 0.25 < time.monotonic() - began < 3


async def test_raw_responses_have_status_and_headers(kind: Any, space: Space) -> None:
    """And what they mean, when asked; rate limits are parsed."""
    space.script(steps.error(500, headers=SOON), steps.normal())
    async with made(kind, space) as client:
        raw: RawResponse[Any] = await result(
            client.chat.completions.with_raw_response.create(**CHAT)
        )

        assert (200, 1) == (raw.status_code, raw.retries_taken)
        assert raw.headers["X-Request-ID"] == raw.request_id == raw.parse().request_id
        assert SAID == raw.parse().choices[0].message.content
        assert SAID == raw.json()["choices"][0]["message"]["content"]
        assert raw.rate_limit.limit_requests == 1000
        assert client.rate_limit == raw.rate_limit
        for resource in (client.completions, client.embeddings, client.models, client.usage):
            assert hasattr(resource, "with_raw_response")


async def test_redirects_stay_at_home(kind: Any, space: Space) -> None:
    """On the same origin the request is repeated; elsewhere nothing is sent, and no key."""
    other = space.animica.replace("127.0.0.1", "127.0.0.2")
    target = space.animica.removeprefix(space.origin) + "/models"
    space.script(steps.redirected(307, target), steps.normal(), steps.redirected(307, other))
    async with made(kind, space) as client:
        assert "data" in await result(client.models())
        with pytest.raises(errors.APIStatusError, match="was not followed"):
            await result(client.models())

    assert 3 == len(space.requests)


async def test_a_closed_client_says_so(kind: Any, space: Space) -> None:
    """Nothing is sent; its copies are closed with it."""
    async with made(kind, space) as client:
        copy = client.with_options(timeout=3)
        await result(client.models())
    for one in (client, copy):
        with pytest.raises(errors.ClientClosed):
            await result(one.models())

    assert 1 == len(space.requests)
    space.wait_for(lambda: space.open_connections == 0)


async def test_context_managers_close(kind: Any, space: Space) -> None:
    """``with`` and ``async with``, like those of the official clients."""
    client = kind(space.key, base_url=space.animica)
    if kind is Animica:
        with client as inside:
            inside.models()
    else:
        async with client as inside:
            await inside.models()

    assert inside is client
    space.wait_for(lambda: space.open_connections == 0)


@pytest.mark.parametrize("sizes", [1, 7])
async def test_oddities_of_http_are_read(kind: Any, space: Space, sizes: int) -> None:
    """Informational answers, tiny and oddly written chunks, no length: all that HTTP allows."""
    body = b'{"data": []}'
    space.script(
        steps.informed(100, 102, 103),
        steps.rechunked(sizes),
        steps.oddly_chunked(),
        steps.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body),
        steps.raw(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)),
    )
    async with made(kind, space, max_retries=0) as client:
        for _ in range(5):
            assert "data" in await result(client.models())
