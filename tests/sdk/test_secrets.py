"""No key, and nothing that was said, is in a repr, a log, an error, a pickle or a traceback."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest
from apiserver import Space, steps
from client_kinds import collected, result

from animica_hooks import errors
from animica_hooks.errors import APIError, APIStatusError
from animica_hooks.sdk import Animica, AsyncAnimica
from animica_hooks.sdk.animica import AnimicaError

KEY = "anm_live_CANARY_0123456789"
PAYLOAD = "PAYLOAD_CANARY"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": PAYLOAD}]}


@pytest.fixture(params=[Animica, AsyncAnimica])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def everything(error: BaseException) -> str:
    """What logs and error reporters keep of an exception, with the variables of our frames."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines = []
    while told is not None:
        lines += [
            f"{frame.name} {frame.locals}"
            for frame in told.stack
            if "animica_hooks" in frame.filename
        ]
        told = told.__cause__ or told.__context__  # type: ignore[assignment]
    return "\n".join([str(error), repr(error), repr(vars(error)), *lines])


@pytest.mark.parametrize(
    "step",
    [
        steps.error(401, f"Incorrect API key provided: {KEY}."),
        steps.reply(
            json.dumps({"error": {"code": KEY}}).replace("CANARY", "\\u0043ANARY"), status=400
        ),
        steps.reply({"error": {"message": "x", "echo": [f"Bearer {KEY}"]}}, status=400),
        steps.reply(f"<html>{KEY}", status=500),
        steps.reply("{", headers={"x-other": "1"}),
        steps.error(400, headers={"x-echo": f"Bearer {KEY}"}),
        steps.reply("{", headers={"x-request-id": KEY}),
        steps.reply("{", content_type=KEY),
        steps.hung_up(),
        steps.truncated(),
        steps.redirected(307, "http://127.0.0.2:1/"),
        steps.reply({}, status=400, headers={"set-cookie": "session=COOKIE_CANARY"}),
    ],
)
async def test_errors_have_no_secrets(kind: Any, space: Space, step: Any) -> None:
    """Not the key, even if the API repeats it, nor cookies, nor what was asked."""
    space.always(step)
    client = kind(KEY, base_url=space.animica, max_retries=0)
    with pytest.raises(APIError) as caught:
        await result(client.chat_completions(**CHAT))
    text = everything(caught.value)
    await result(client.close())

    assert KEY not in text
    assert "COOKIE_CANARY" not in text
    assert PAYLOAD not in str(caught.value)
    assert KEY.encode() not in pickle.dumps(caught.value)


async def test_errors_of_streams_have_no_secrets(kind: Any, space: Space) -> None:
    """An error event that repeats the key has it taken out."""
    told = f'{{"error":{{"type":"authentication_error","message":"Bad key {KEY}"}}}}'
    space.always(steps.streamed(f"event: error\ndata: {told}\n\n"))
    client = kind(KEY, base_url=space.animica)
    with pytest.raises(errors.AuthenticationError, match="Bad key") as caught:
        await collected(client.chat_completions(**CHAT, stream=True))
    await result(client.close())

    assert KEY not in everything(caught.value)


async def test_reprs_have_no_secrets(kind: Any, space: Space) -> None:
    """Of clients, resources, settings, requests, answers and streams."""
    client = kind(
        KEY, base_url="http://127.0.0.1:1/v1", proxy="http://user:PROXY_CANARY@127.0.0.1:1"
    )
    request, policy = client._settings.request("POST", "/x", dict(CHAT), stream=False)
    shown = [
        client,
        client.chat,
        client.chat.completions,
        client.embeddings,
        client._settings,
        client._connections,
        request,
        request.headers,
        policy,
        client.with_options(timeout=3),
    ]

    assert "CANARY" not in repr(shown)
    assert "'***'" in repr(request.headers)
    assert f"Bearer {KEY}" in dict(request.headers).values()


async def test_a_client_is_not_pickled(kind: Any) -> None:
    """Nor copied by ``copy``: it holds a key and connections."""
    client = kind(KEY)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a key"):
            attempt(client)


async def test_logs_name_requests_and_nothing_more(
    kind: Any, space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, path, status, time and request id; neither query, headers nor bodies."""
    caplog.set_level(logging.DEBUG)
    client = kind(space.key, base_url=space.animica, max_retries=1)
    space.script(steps.reset(), steps.normal(), steps.reply({"m": PAYLOAD}, status=400))
    await result(client.models(extra_query={"secret": "QUERY_CANARY"}))
    with pytest.raises(errors.BadRequestError):
        await result(client.chat_completions(**CHAT))
    await result(client.close())
    lines = [record.message for record in caplog.records if record.name == "animica_hooks.sdk"]

    assert 3 == len(lines)
    assert "/models: APIConnectionError in" in lines[0]
    assert "/models: 200 in" in lines[1]
    assert "POST" in lines[2]
    assert "request id req_" in lines[2]
    for secret in (space.key, PAYLOAD, "QUERY_CANARY"):
        assert secret not in "".join(lines)


def test_the_environment_asks_for_logs(space: Space) -> None:
    """``ANIMICA_LOG=debug`` shows requests on standard error; without it nothing is shown."""
    code = (
        "import sys; from animica_hooks.sdk import Animica\n"
        "Animica(sys.argv[1], base_url=sys.argv[2]).models()"
    )
    shown = {}
    for level in ("debug", ""):
        done = subprocess.run(
            [sys.executable, "-c", code, space.key, space.animica],
            env={"ANIMICA_LOG": level},
            capture_output=True,
            text=True,
            check=True,
        )
        shown[level] = done.stderr

    assert "GET " in shown["debug"]
    assert "/models: 200 in" in shown["debug"]
    assert space.key not in shown["debug"].replace(space.token, "")
    assert "" == shown[""]


@pytest.mark.parametrize(
    "kind_of_error",
    [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, APIError)],
)
def test_errors_arrive_whole_in_other_processes(kind_of_error: type[APIError]) -> None:
    """Pickled and back, with all that they say."""
    error = kind_of_error(
        "m",
        status=429,
        type="t",
        code="c",
        param="p",
        request_id="r",
        body={"a": 1},
        headers={"x": "1"},
        retry_after=1.5,
        partial_text="so far",
    )
    arrived = pickle.loads(pickle.dumps(error))

    assert type(error) is type(arrived)
    assert vars(error) == vars(arrived)
    assert "m" == str(arrived)
    if isinstance(arrived, APIStatusError):
        assert ("429", {"x": "1"}) == (str(arrived.status_code), arrived.response.headers)


async def test_an_error_of_any_depth_arrives(kind: Any, space: Space) -> None:
    """Nested deeper than pickle goes it is text."""
    body = '{"error":{"message":"m","inner":' + "[" * 600 + "]" * 600 + "}}"
    space.script(steps.reply(body, status=400))
    client = kind(space.key, base_url=space.animica)
    with pytest.raises(errors.BadRequestError) as caught:
        await result(client.models())
    await result(client.close())

    assert body == pickle.loads(pickle.dumps(caught.value)).body


def test_one_tree_for_all() -> None:
    """``AnimicaError`` is the root of what a call may raise; connection errors are in it."""
    assert AnimicaError is APIError
    assert issubclass(errors.APITimeoutError, errors.APIConnectionError)
    assert issubclass(errors.APIConnectionError, AnimicaError)
    assert None is errors.APITimeoutError("x").status
