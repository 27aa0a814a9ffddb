"""Anannas' clients over real HTTP: models named provider/model-name, and credits that end."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from apiserver import Space, steps
from apiserver.answer import Event
from client_kinds import collected, result

from animica_hooks import errors
from animica_hooks.errors import APIRequestError, ConfigurationError, InsufficientCreditsError
from animica_hooks.sdk import Anannas, AsyncAnannas, anannas

MODEL = "openai/gpt-5-mini"
MESSAGES = [{"role": "user", "content": "Hello there"}]
CHAT: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
SAID = "You said: Hello there"


@pytest.fixture(params=[Anannas, AsyncAnannas])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def made(kind: Any, space: Space, **options: Any) -> AsyncIterator[Any]:
    """A client of this space, closed at the end."""
    client = kind(space.key, **{"base_url": space.anannas, "max_retries": 0, **options})
    try:
        yield client
    finally:
        await result(client.close())


async def ask(client: Any, way: str, **params: Any) -> Any:
    """Ask in one of the ways there are, to the end."""
    completions = client.chat.completions
    if way == "raw":
        return await result(completions.with_raw_response.create(**params))
    if way == "streamed":
        return await collected(completions.create(**params, stream=True))
    if way == "helped" and isinstance(client, Anannas):
        with completions.stream(**params) as stream:
            return stream.get_final_completion()
    if way == "helped":
        async with completions.stream(**params) as stream:
            return await stream.get_final_completion()
    return await result(completions.create(**params))


WAYS = ["whole", "raw", "streamed", "helped"]


@pytest.mark.parametrize("way", WAYS)
async def test_chat_is_answered(kind: Any, space: Space, way: str) -> None:
    """In each way, with the key, by the model that was named."""
    async with made(kind, space) as client:
        answer = await ask(client, way, **CHAT)

    if way == "streamed":
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = (answer.parse() if way == "raw" else answer).choices[0].message.content
    assert SAID == text
    assert (MODEL, f"Bearer {space.key}") == (
        space.last.json["model"],
        space.last.header("authorization"),
    )


async def test_models_are_listed(kind: Any, space: Space) -> None:
    """With their providers in their names."""
    async with made(kind, space) as client:
        models = await result(client.models.list())

    assert [MODEL, "openai/gpt-3.5-turbo"] == [model.id for model in models.data][:2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "model",
    ["gpt-5-mini", "", "/", "openai/", "/gpt-5-mini", "openai//x", "openai/gpt 5", " a/b", None, 5],
)
async def test_a_model_without_its_provider_is_refused(
    kind: Any, space: Space, way: str, model: Any
) -> None:
    """Before anything is sent, and without repeating what was given."""
    async with made(kind, space) as client:
        with pytest.raises(APIRequestError, match="named provider/model-name") as caught:
            await ask(client, way, model=model, messages=MESSAGES)

    assert (None, "model") == (caught.value.status, caught.value.param)
    assert [] == space.requests


@pytest.mark.parametrize("model", ["a/b", "openai/gpt-5-mini:free", "meta/llama-3/70b@x"])
async def test_other_models_are_for_the_api_to_judge(kind: Any, space: Space, model: str) -> None:
    """A name of the right form is sent, and the API knows it or not."""
    async with made(kind, space) as client:
        with pytest.raises(errors.BadRequestError, match=f"Invalid model: {model}"):
            await ask(client, "whole", model=model, messages=MESSAGES)

    assert 1 == len(space.requests)


async def test_the_model_that_is_sent_is_the_one_that_counts(kind: Any, space: Space) -> None:
    """``extra_body`` is laid over the rest, so its model is looked at where it has one."""
    async with made(kind, space) as client:
        await ask(client, "whole", model="x", messages=MESSAGES, extra_body={"model": MODEL})
        await ask(client, "whole", **CHAT, extra_body={"transforms": []})
        with pytest.raises(APIRequestError):
            await ask(client, "whole", **CHAT, extra_body={"model": "x"})

    assert [MODEL, MODEL] == [sent.json["model"] for sent in space.requests]


@pytest.mark.parametrize("way", WAYS)
async def test_without_credits_there_is_an_error_of_its_own(
    kind: Any, space: Space, way: str
) -> None:
    """402 is InsufficientCreditsError; asking again would not help, and is not done."""
    space.has_credits = False
    async with made(kind, space, max_retries=2) as client:
        with pytest.raises(InsufficientCreditsError) as caught:
            await ask(client, way, **CHAT)

    error = caught.value
    assert (402, "insufficient_quota_error", "Insufficient credits") == (
        error.status,
        error.type,
        error.message,
    )
    assert str(error.request_id).startswith("req_")
    assert 1 == len(space.requests)


FAILURES = [
    ({"code": 402, "message": "m"}, InsufficientCreditsError),
    ({"type": "insufficient_quota_error", "message": "m"}, InsufficientCreditsError),
    ({"type": "content_filter_error", "message": "m"}, errors.PermissionDeniedError),
    ({"type": "provider_error", "message": "m"}, errors.InternalServerError),
    ({"code": 429, "message": "m"}, errors.RateLimitError),
    ({"message": "m"}, errors.APIError),
    ("m", errors.APIError),
]


@pytest.mark.parametrize(("told", "expected"), FAILURES)
@pytest.mark.parametrize("way", ["whole", "raw"])
async def test_an_error_with_status_200_is_an_error(
    kind: Any, space: Space, way: str, told: Any, expected: type[Exception]
) -> None:
    """What fails while a model is at work comes in the body of a success, and raises its class."""
    space.script(steps.reply({"error": told}))
    async with made(kind, space) as client:
        with pytest.raises(errors.APIError) as caught:
            await ask(client, way, **CHAT)

    assert (expected, "m") == (type(caught.value), caught.value.message)
    assert str(caught.value.request_id).startswith("req_")
    assert caught.value.headers is not None


@pytest.mark.parametrize(("told", "expected"), FAILURES)
async def test_an_error_in_mid_stream_is_the_same(
    kind: Any, space: Space, told: Any, expected: type[Exception]
) -> None:
    """With the text that had come."""
    space.script(steps.edited_events(lambda events: [*events[:3], Event({"error": told})]))
    async with made(kind, space) as client:
        with pytest.raises(errors.APIError) as caught:
            await ask(client, "streamed", **CHAT)

    assert (expected, "m", "You said") == (
        type(caught.value),
        caught.value.message,
        caught.value.partial_text,
    )


@pytest.mark.parametrize(
    "beside", [{"error": None}, {"error": {}}, {"error": {"message": "a warning"}}]
)
async def test_an_answer_beside_an_error_is_an_answer(
    kind: Any, space: Space, beside: dict[str, Any]
) -> None:
    """Where there are choices, or the error is empty, nothing is thrown away."""
    space.script(steps.edited(lambda payload: payload.update(beside)))
    async with made(kind, space) as client:
        answer = await ask(client, "whole", **CHAT)

    assert SAID == answer.choices[0].message.content
    assert beside["error"] == answer.error


async def test_an_empty_answer_is_no_error(kind: Any, space: Space) -> None:
    """Nothing said, and no error either, is an answer without choices."""
    space.script(steps.reply({"choices": [], "error": None}))
    async with made(kind, space) as client:
        answer = await ask(client, "whole", **CHAT)

    assert [] == answer.choices


@pytest.mark.parametrize("body", ['{"error"', '["error"]'])
async def test_an_unusable_answer_is_told_as_ever(kind: Any, space: Space, body: str) -> None:
    """What is no JSON object is APIResponseError, whatever words it has."""
    space.script(steps.reply(body))
    async with made(kind, space) as client:
        with pytest.raises(errors.APIResponseError) as caught:
            await ask(client, "whole", **CHAT)

    assert str(caught.value.request_id).startswith("req_")


async def test_an_error_with_status_200_has_no_secrets(kind: Any, space: Space) -> None:
    """The key that it repeats is taken out, and is in no frame's variables either."""
    space.script(steps.reply({"error": {"message": f"Bad key {space.key}", "code": 401}}))
    async with made(kind, space) as client:
        with pytest.raises(errors.AuthenticationError, match="Bad key") as caught:
            await ask(client, "whole", **CHAT)

    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [str(frame.locals) for frame in told.stack if "animica_hooks" in frame.filename]
    assert ours
    assert space.key not in "".join([*ours, repr(vars(caught.value))])


async def test_a_key_is_needed(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the argument or ANANNAS_API_KEY; without one the error says what to do."""
    monkeypatch.delenv("ANANNAS_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="set ANANNAS_API_KEY"):
        kind()
    monkeypatch.setenv("ANANNAS_API_KEY", "anm_test_x")

    assert "https://api.anannas.ai/v1" == kind().base_url


def test_what_the_api_has_not_the_client_has_not() -> None:
    """Neither embeddings nor text completions; the errors are at hand in its module."""
    client = Anannas("anm_test_x")

    assert [False, False] == [hasattr(client, name) for name in ("embeddings", "completions")]
    assert anannas.InsufficientCreditsError is InsufficientCreditsError
    assert {"APIError", "InsufficientCreditsError", "RateLimitError"} <= {*anannas.__all__}
