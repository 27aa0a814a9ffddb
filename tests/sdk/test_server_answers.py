"""The test server's answers, seen without any package between: keys, quotas, errors, replays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from apiserver import APIServer, Space, steps

CHAT = {"model": "anm-fast-8b", "messages": [{"role": "user", "content": "Hello"}]}
ANDY_CHAT = {**CHAT, "model": "sweaterdog/andy-4:latest"}
ANANNAS_CHAT = {**CHAT, "model": "openai/gpt-5-mini"}
MESSAGE = {"model": "claude-3-opus", "max_tokens": 9, "messages": CHAT["messages"]}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client() as client:
        yield client


@pytest.fixture
def bearer(space: Space) -> dict[str, str]:
    return {"authorization": f"Bearer {space.key}"}


def test_a_request_is_recorded(http: httpx2.Client, space: Space, bearer: dict[str, str]) -> None:
    """A request's method, path, query, headers, body and connection are there to be read."""
    for _ in range(2):
        http.post(f"{space.animica}/chat/completions?a=1", json=CHAT, headers=bearer)

    first, second = space.requests
    assert ("animica", "POST", "/v1/chat/completions", "a=1", CHAT) == (
        first.provider,
        first.method,
        first.path,
        first.query,
        first.json,
    )
    assert bearer["authorization"] == first.header("Authorization")
    assert (True, False) == (first.has("Content-Type"), first.has("idempotency-key"))
    assert first.connection == second.connection
    assert (True, False) == (first.done, first.broken_off)
    assert space.origin == first.origin


def test_spaces_do_not_meet(
    http: httpx2.Client, space: Space, api_server: APIServer, bearer: dict[str, str]
) -> None:
    """Scripts, records and quotas of one space are no other's."""
    other = api_server.space()
    other.always(steps.error(500))

    answer = http.get(f"{space.animica}/models", headers=bearer)

    assert (200, 1, 0) == (answer.status_code, len(space.requests), len(other.requests))


@pytest.mark.parametrize("path", ["", "/nothing", "/{token}/nothing/v1/models"])
def test_elsewhere_is_nothing(http: httpx2.Client, space: Space, path: str) -> None:
    """What belongs to no space is 404 and recorded nowhere."""
    answer = http.get(space.origin + path.format(token=space.token))

    assert (404, []) == (answer.status_code, space.requests)


@pytest.mark.parametrize(
    ("provider", "key", "status"),
    [
        ("animica", "anm_live_x", 200),
        ("animica", "anm_test_x", 200),
        ("animica", "sk-other", 401),
        ("animica", "", 401),
        ("animica", "anm_live_revoked", 401),
        ("andy", "any", 200),
        ("andy", "", 401),
        ("andy", "revoked", 401),
        ("anannas", "any", 200),
        ("anannas", "", 401),
        ("anannas", "revoked", 401),
    ],
)
def test_a_key_is_needed(
    http: httpx2.Client, space: Space, provider: str, key: str, status: int
) -> None:
    """Each provider takes its own keys, and nothing else."""
    headers = {"authorization": f"Bearer {key}"} if key else {}

    answer = http.get(f"{space.url(provider)}/models", headers=headers)

    assert status == answer.status_code
    if status == 401:
        assert "authentication_error" == answer.json()["error"]["type"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "k", **VERSION}, 200),
        ({"authorization": "Bearer k", **VERSION}, 200),
        ({"x-api-key": "k"}, 400),
        ({"x-api-key": "revoked", **VERSION}, 401),
        (VERSION, 401),
    ],
)
def test_anthropic_needs_a_key_and_a_version(
    http: httpx2.Client, space: Space, headers: dict[str, str], status: int
) -> None:
    """Anthropic refuses a request without its key or version, in its own shape."""
    answer = http.post(f"{space.anthropic}/v1/messages", json=MESSAGE, headers=headers)

    payload = answer.json()
    assert status == answer.status_code
    if status != 200:
        assert ("error", answer.headers["request-id"]) == (payload["type"], payload["request_id"])


@pytest.mark.parametrize(
    ("path", "content", "status", "param"),
    [
        ("/chat/completions", b"{", 400, None),
        ("/chat/completions", b"\xff", 400, None),
        ("/chat/completions", b"[]", 400, None),
        ("/chat/completions", b'{"model": "anm-fast-8b"}', 400, "messages"),
        ("/chat/completions", b'{"model": "anm-fast-8b", "messages": []}', 400, "messages"),
        ("/chat/completions", b'{"messages": []}', 400, "model"),
        (
            "/chat/completions",
            json.dumps({**CHAT, "temperature": 3}).encode(),
            400,
            "temperature",
        ),
        ("/chat/completions", json.dumps({**CHAT, "model": "gpt"}).encode(), 404, "model"),
        ("/completions", b'{"model": "anm-fast-8b"}', 400, "prompt"),
        ("/embeddings", b'{"model": "anm-embed"}', 400, "input"),
        ("/elsewhere", b"{}", 404, None),
    ],
)
def test_a_bad_request_is_refused(
    http: httpx2.Client,
    space: Space,
    bearer: dict[str, str],
    path: str,
    content: bytes,
    status: int,
    param: str | None,
) -> None:
    """What the API can not make sense of is refused, with the parameter's name."""
    headers = {**bearer, "content-type": "application/json"}

    answer = http.post(space.animica + path, content=content, headers=headers)

    error = answer.json()["error"]
    assert (status, param, "invalid_request_error") == (
        answer.status_code,
        error["param"],
        error["type"],
    )
    assert 0 == space.executed


def test_method_and_content_type_are_checked(
    http: httpx2.Client, space: Space, bearer: dict[str, str]
) -> None:
    """Another method is 405, another content type 415."""
    wrong_method = http.get(f"{space.animica}/chat/completions", headers=bearer)
    wrong_type = http.post(f"{space.animica}/chat/completions", content=b"{}", headers=bearer)

    assert (405, 415) == (wrong_method.status_code, wrong_type.status_code)


@pytest.mark.parametrize(
    ("provider", "status", "type"),
    [
        ("animica", 402, "insufficient_quota"),
        ("animica", 403, "permission_error"),
        ("animica", 429, "rate_limit_error"),
        ("animica", 500, "api_error"),
        ("anannas", 402, "insufficient_quota_error"),
        ("anannas", 403, "content_filter_error"),
        ("anannas", 408, "timeout_error"),
        ("anannas", 502, "provider_error"),
        ("anthropic", 402, "billing_error"),
        ("anthropic", 404, "not_found_error"),
        ("anthropic", 413, "request_too_large"),
        ("anthropic", 504, "timeout_error"),
        ("anthropic", 529, "overloaded_error"),
    ],
)
def test_errors_have_their_providers_types(
    http: httpx2.Client, space: Space, provider: str, status: int, type: str
) -> None:
    """A status has the type that the provider's document gives it."""
    space.script(steps.error(status))

    answer = http.get(f"{space.url(provider)}/models")

    assert (status, type) == (answer.status_code, answer.json()["error"]["type"])


def test_a_repeated_key_replays_the_stored_answer(
    http: httpx2.Client, space: Space, bearer: dict[str, str]
) -> None:
    """With an idempotency key a request is carried out once, and its answer sent again."""
    headers = {**bearer, "idempotency-key": "order-12345"}
    url = f"{space.animica}/chat/completions"

    first, second = (http.post(url, json=CHAT, headers=headers) for _ in range(2))
    other = http.post(url, json={**CHAT, "n": 2}, headers=headers)
    spent = http.get(f"{space.animica}/usage", headers=bearer).json()

    assert first.content == second.content
    assert (False, "true") == (
        "idempotent-replayed" in first.headers,
        second.headers["idempotent-replayed"],
    )
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert (422, "idempotency_key_reused") == (other.status_code, other.json()["error"]["code"])
    assert {"totalSpentUsd": 0.001, "count": 1} == spent


@pytest.mark.parametrize("trouble", [steps.reset(), steps.truncated(), steps.broken(2)])
def test_an_answer_that_was_lost_is_stored(
    http: httpx2.Client, space: Space, bearer: dict[str, str], trouble: steps.Step
) -> None:
    """What is carried out but never arrives is replayed to the retry, not done twice."""
    headers = {**bearer, "idempotency-key": "order-12345"}
    url = f"{space.animica}/chat/completions"
    space.script(trouble)

    with pytest.raises(httpx2.TransportError):
        http.post(url, json={**CHAT, "stream": True}, headers=headers)
    retried = http.post(url, json={**CHAT, "stream": True}, headers=headers)

    assert "true" == retried.headers["idempotent-replayed"]
    assert retried.text.endswith("data: [DONE]\n\n")
    assert 1 == space.executed


def test_a_refused_request_is_not_stored(
    http: httpx2.Client, space: Space, bearer: dict[str, str]
) -> None:
    """After an error the same key carries the request out."""
    headers = {**bearer, "idempotency-key": "order-12345"}
    url = f"{space.animica}/chat/completions"
    space.script(steps.error(503))

    statuses = [http.post(url, json=CHAT, headers=headers).status_code for _ in range(2)]

    assert ([503, 200], 1) == (statuses, space.executed)


def test_chat_without_a_key_is_ten_a_minute(http: httpx2.Client, space: Space) -> None:
    """Andy API chats ten times a minute with those without a key, and longer with others."""
    url = f"{space.andy}/chat/completions"

    statuses = [http.post(url, json=ANDY_CHAT).status_code for _ in range(10)]
    refused = http.post(url, json=ANDY_CHAT)
    with_key = http.post(url, json=ANDY_CHAT, headers={"authorization": "Bearer k"})
    space.pass_time(60)
    later = http.post(url, json=ANDY_CHAT)

    assert [200] * 10 == statuses
    assert (429, "rate_limit_error", "0") == (
        refused.status_code,
        refused.json()["error"]["type"],
        refused.headers["x-ratelimit-remaining-requests"],
    )
    assert 55 <= int(refused.headers["retry-after"]) <= 60
    assert (200, 200) == (with_key.status_code, later.status_code)


def test_the_pool_shows_its_hosts(http: httpx2.Client, space: Space) -> None:
    """Andy API's pool status is beside its /v1 and needs a key."""
    url = f"{space.andy.removesuffix('/v1')}/pool_status"

    refused = http.get(url)
    status = http.get(url, headers={"authorization": "Bearer k"}).json()

    assert 401 == refused.status_code
    assert (2, 1, 2) == (status["total_hosts"], status["active_hosts"], status["total_models"])
    assert ["host-1", "host-2"] == [host["host_id"] for host in status["hosts"]]


def test_anannas_wants_its_names_and_credits(http: httpx2.Client, space: Space) -> None:
    """A model without its provider is 400, an empty account 402, in the document's shape."""
    url, headers = f"{space.anannas}/chat/completions", {"authorization": "Bearer k"}

    unknown = http.post(url, json={**ANANNAS_CHAT, "model": "unknown-model"}, headers=headers)
    space.has_credits = False
    poor = http.post(url, json=ANANNAS_CHAT, headers=headers)

    assert (400, 402) == (unknown.status_code, poor.status_code)
    assert {
        "error": {"message": "Invalid model: unknown-model", "type": "invalid_request_error"}
    } == unknown.json()
    assert "insufficient_quota_error" == poor.json()["error"]["type"]


def test_the_legacy_prompt_has_its_turns(http: httpx2.Client, space: Space) -> None:
    """A legacy prompt without its Human and Assistant turns is refused."""
    url, headers = f"{space.anthropic}/v1/complete", {"x-api-key": "k", **VERSION}
    body: dict[str, Any] = {"model": "claude-2", "max_tokens_to_sample": 9}

    statuses = [
        http.post(url, json={**body, "prompt": prompt}, headers=headers).status_code
        for prompt in ("Hello", "\n\nHuman: Hello", "\n\nHuman: Hello\n\nAssistant:")
    ]

    assert [400, 400, 200] == statuses


def test_text_is_completed_in_increments(http: httpx2.Client, space: Space) -> None:
    """The legacy API answers whole, or as named events of increments with a ping among them."""
    url, headers = f"{space.anthropic}/v1/complete", {"x-api-key": "k", **VERSION}
    prompt = "\n\nHuman: Hello\n\nAssistant:"
    body = {"model": "claude-2", "max_tokens_to_sample": 9, "prompt": prompt}

    whole = http.post(url, json=body, headers=headers).json()
    text = http.post(url, json={**body, "stream": True}, headers=headers).text

    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in blocks]
    data = [json.loads(line.removeprefix("data: ")) for _, line in blocks]
    increments = [found for found in data if found["type"] == "completion"]
    assert [found["type"] for found in data] == names
    assert ["completion"] * 5 == [name for name in names if name != "ping"]
    assert ["ping"] == [name for name in names if name != "completion"]
    assert ("completion", " You said: Hello", "stop_sequence") == (
        whole["type"],
        whole["completion"],
        whole["stop_reason"],
    )
    assert whole["completion"] == "".join(found["completion"] for found in increments)
    assert [None] * 4 + ["stop_sequence"] == [found["stop_reason"] for found in increments]
