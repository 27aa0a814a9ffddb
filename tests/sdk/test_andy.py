"""The Andy API's clients over real HTTP: chat without a key, and what needs one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from apiserver import Space, steps
from client_kinds import collected, result

from animica_hooks.errors import (
    APIRequestError,
    AuthenticationError,
    ConfigurationError,
    RateLimitError,
)
from animica_hooks.sdk import Andy, AsyncAndy, andy

CHAT: dict[str, Any] = {
    "model": "sweaterdog/andy-4:latest",
    "messages": [{"role": "user", "content": "Hello there"}],
}
SAID = "You said: Hello there"
# What needs a key, as calls of a client.
KEYED: dict[str, Callable[[Any], Any]] = {
    "models": lambda client: client.models.list(),
    "models raw": lambda client: client.models.with_raw_response.list(),
    "embeddings": lambda client: client.embeddings.create(model="nomic-embed-text", input="a"),
    "pool_status": lambda client: client.pool_status(),
    "pool_status raw": lambda client: client.pool_status.with_raw_response(),
}


@pytest.fixture(params=[Andy, AsyncAndy])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key in the environment."""
    monkeypatch.delenv("ANDY_API_KEY", raising=False)


@asynccontextmanager
async def made(kind: Any, space: Space, key: str | None, **options: Any) -> AsyncIterator[Any]:
    """A client of this space, closed at the end."""
    client = kind(key, **{"base_url": space.andy, "max_retries": 0, **options})
    try:
        yield client
    finally:
        await result(client.close())


async def test_chat_needs_no_key(kind: Any, space: Space) -> None:
    """Whole, streamed, raw and by the helper, chat is answered without a key, and none is sent."""
    async with made(kind, space, None) as client:
        whole = await result(client.chat.completions.create(**CHAT))
        chunks = await collected(client.chat.completions.create(**CHAT, stream=True))
        raw = await result(client.chat.completions.with_raw_response.create(**CHAT))
        stream = client.chat.completions.stream(**CHAT)
        if kind is Andy:
            with stream as helped:
                text = helped.get_final_text()
        else:
            async with stream as helped:
                text = await helped.get_final_text()

    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert [SAID] * 4 == [
        whole.choices[0].message.content,
        "".join(pieces),
        raw.parse().choices[0].message.content,
        text,
    ]
    assert [False] * 4 == [sent.has("authorization") for sent in space.requests]


@pytest.mark.parametrize("call", KEYED.values(), ids=KEYED)
async def test_the_rest_needs_a_key(kind: Any, space: Space, call: Callable[[Any], Any]) -> None:
    """Without a key it is refused, in words that say what to do, before anything is sent."""
    async with made(kind, space, None) as client:
        with pytest.raises(APIRequestError, match="give api_key, or set ANDY_API_KEY") as caught:
            await result(call(client))

    assert None is caught.value.status
    assert [] == space.requests


async def test_with_a_key_all_is_answered(kind: Any, space: Space) -> None:
    """Chat, embeddings, models and the pool's status, each with the key."""
    async with made(kind, space, space.key) as client:
        chat = await result(client.chat.completions.create(**CHAT))
        vectors = await result(client.embeddings.create(model="nomic-embed-text", input=["a", "b"]))
        models = await result(client.models.list())
        await result(client.pool_status())

    assert SAID == chat.choices[0].message.content
    assert [8, 8] == [len(item.embedding) for item in vectors.data]
    assert CHAT["model"] in [model.id for model in models.data]
    assert [f"Bearer {space.key}"] * 4 == [sent.header("authorization") for sent in space.requests]


async def test_the_key_comes_from_the_environment(
    kind: Any, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ANDY_API_KEY is used where there is one; a blank one is a mistake, not no key."""
    monkeypatch.setenv("ANDY_API_KEY", space.key)
    async with made(kind, space, None) as client:
        await result(client.models.list())
    monkeypatch.setenv("ANDY_API_KEY", " ")
    with pytest.raises(ConfigurationError, match=r"from ANDY_API_KEY\) is blank"):
        kind()

    assert f"Bearer {space.key}" == space.last.header("authorization")


async def test_the_header_itself_is_a_key(kind: Any, space: Space) -> None:
    """Who sends the header has a key; who leaves it out of a call, or of a client, has none."""
    header = {"authorization": f"Bearer {space.key}"}
    async with made(kind, space, None) as client:
        await result(client.models.list(extra_headers=header))
        await result(client.with_options(default_headers=header).models.list())
    async with made(kind, space, space.key) as client:
        with pytest.raises(APIRequestError):
            await result(client.models.list(extra_headers={"Authorization": None}))
        without = client.with_options(default_headers={"Authorization": None})
        with pytest.raises(APIRequestError):
            await result(without.models.list())
        await result(without.chat.completions.create(**CHAT))

    assert [True, True, False] == [sent.has("authorization") for sent in space.requests]


async def test_a_client_of_httpx_may_bring_the_key(kind: Any, space: Space) -> None:
    """It is the API's to tell whether it did."""
    own = httpx.Client() if kind is Andy else httpx.AsyncClient()
    async with made(kind, space, None, http_client=own) as client:
        with pytest.raises(AuthenticationError):
            await result(client.models.list())
        own.headers["authorization"] = f"Bearer {space.key}"
        assert (await result(client.models.list())).data
    own.close() if isinstance(own, httpx.Client) else await own.aclose()


async def test_the_pool_shows_its_hosts_and_load(kind: Any, space: Space) -> None:
    """Typed, with the request's id; and raw, with status and headers."""
    async with made(kind, space, space.key) as client:
        pool = await result(client.pool_status())
        raw = await result(client.pool_status.with_raw_response())

    assert (2, 1, 2) == (pool.total_hosts, pool.active_hosts, pool.total_models)
    assert [("host-1", "active", 0.25), ("host-2", "inactive", 0.0)] == [
        (host.host_id, host.status, host.load) for host in pool.hosts
    ]
    assert [CHAT["model"]] == pool.hosts[0].models
    assert [(CHAT["model"], 1), ("nomic-embed-text:latest", 0)] == [
        (model.name, model.available_hosts) for model in pool.models
    ]
    assert pool.request_id.startswith("req_")
    assert (200, pool.to_dict()) == (raw.status_code, raw.json())
    assert ("GET", "/api/andy/pool_status") == (space.last.method, space.last.path)


async def test_what_else_the_pool_says_is_kept(kind: Any, space: Space) -> None:
    """Its answer is not documented further: more, less and other types are no errors."""
    odd = {"hosts": [{"host_id": 1, "load": "high", "gpu": "x"}], "models": None, "version": 2}
    space.script(steps.reply(odd), steps.reply({}))
    async with made(kind, space, space.key) as client:
        pool = await result(client.pool_status())
        empty = await result(client.pool_status())

    (host,) = pool.hosts
    assert ("1", "high", "x", []) == (host.host_id, host.load, host.gpu, pool.models)
    assert {"version": 2} == pool.extra
    assert (0, []) == (empty.active_hosts, empty.hosts)


async def test_ten_requests_a_minute_are_all_without_a_key(kind: Any, space: Space) -> None:
    """The eleventh is RateLimitError with its headers and how long to wait; a key has more."""
    async with made(kind, space, None) as client:
        for left in reversed(range(10)):
            await result(client.chat.completions.create(**CHAT))
            limit = client.rate_limit
            assert (10, left) == (limit.limit_requests, limit.remaining_requests)
        with pytest.raises(RateLimitError) as caught:
            await result(client.chat.completions.create(**CHAT))
    async with made(kind, space, space.key) as client:
        await result(client.chat.completions.create(**CHAT))
        assert 10 < client.rate_limit.limit_requests

    error = caught.value
    assert error.headers is not None
    assert ("10", "0") == (
        error.headers["x-ratelimit-limit-requests"],
        error.headers["x-ratelimit-remaining-requests"],
    )
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 60
    assert (429, True) == (error.status, str(error.request_id).startswith("req_"))
    assert 11 == space.executed


@pytest.mark.parametrize("kind_of", [Andy, AsyncAndy])
def test_the_defaults_are_those_of_the_document(kind_of: Any) -> None:
    """Its base URL; and what the API has not, the client has not."""
    client = kind_of()

    assert "https://mindcraft.riqvip.dev/api/andy/v1" == client.base_url
    assert not hasattr(client, "completions")
    assert {"APIError", "RateLimitError", "APITimeoutError"} <= {*andy.__all__}
