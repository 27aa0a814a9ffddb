"""Every Python snippet of the providers' documents runs as it is written there.

Only its import lines and its server are others: see ``snippets``. What each prints is known, since
the test server's model repeats what it is told.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import importlib
import os
import time
from typing import Any

import httpx
import pytest
import snippets
from apiserver import Space, steps

ANIMICA = snippets.load("animica")
ANTHROPIC = snippets.load("anthropic")
ANDY = snippets.load("andy")
ANANNAS = snippets.load("anannas")

COURT = " You said: how does a court case get to the Supreme Court?"
PROMPT = "\n\nHuman: Hello\n\nAssistant:"
PARAMETERS = {"model": "claude-2", "max_tokens_to_sample": 300, "prompt": PROMPT}
# Waits a millisecond instead of the half second or more of an error that says nothing.
SOON = steps.retry_after("milliseconds", 0.001)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that the snippets expect in the environment."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-x")


@pytest.fixture
def animica(space: Space) -> dict[str, Any]:
    """What the snippets after Animica's first have before them: its client."""
    namespace: dict[str, Any] = {}
    snippets.run(ANIMICA["authentication"], space, namespace)
    return namespace


@pytest.fixture
def anthropic() -> dict[str, Any]:
    """What Anthropic's snippets use without importing it."""
    # By name, since importing httpx alone must not be what fails.
    return {"asyncio": asyncio, "os": os, "httpx": httpx, "params": PARAMETERS}


def ours(namespace: dict[str, Any]) -> dict[str, Any]:
    """Add our module, for the snippets that show only what follows their import."""
    return {**namespace, "anthropic": importlib.import_module("animica_hooks.sdk.anthropic")}


def test_animica_import(space: Space) -> None:
    """Animica's three names are imported from one place."""
    namespace: dict[str, Any] = {}
    snippets.run(ANIMICA["import"], space, namespace)

    assert {"Animica", "AnimicaError", "verify_webhook"} <= namespace.keys()


def test_animica_models(space: Space, animica: dict[str, Any]) -> None:
    """The models are listed, with the client's key."""
    printed = snippets.run(ANIMICA["models"], space, animica)

    assert ["anm-fast-8b", "anm-code-7b"] == printed.splitlines()[:2]
    assert "Bearer anm_live_xxx" == space.last.header("authorization")


def test_animica_chat(space: Space, animica: dict[str, Any]) -> None:
    """A chat completion is a dict with choices and usage."""
    text, usage = snippets.run(ANIMICA["chat"], space, animica).splitlines()

    assert "You said: Write a haiku about mining." == text
    assert "{'prompt_tokens': 12, 'completion_tokens': 9, 'total_tokens': 21}" == usage
    assert (0.7, 128) == (space.last.json["temperature"], space.last.json["max_tokens"])


def test_animica_extra_parameters(space: Space, animica: dict[str, Any]) -> None:
    """Other parameters are sent as they are."""
    snippets.run(ANIMICA["extra parameters"], space, animica)

    assert (0.9, ["\n\n"]) == (space.last.json["top_p"], space.last.json["stop"])


def test_animica_streaming(space: Space, animica: dict[str, Any]) -> None:
    """A stream yields dicts whose deltas make up the text."""
    printed = snippets.run(ANIMICA["streaming"], space, animica)

    assert "You said: Stream a short story.\n" == printed


def test_animica_completions(space: Space, animica: dict[str, Any]) -> None:
    """A text completion is a dict."""
    assert "Once upon a time ...\n" == snippets.run(ANIMICA["completions"], space, animica)


def test_animica_embeddings(space: Space, animica: dict[str, Any]) -> None:
    """Embeddings are lists of numbers, with their index and usage."""
    printed = snippets.run(ANIMICA["embeddings"], space, animica)

    assert "0 8\n1 8\n{'prompt_tokens': 4, 'total_tokens': 4}\n" == printed


def test_animica_usage(space: Space, animica: dict[str, Any]) -> None:
    """The usage tells what was spent."""
    assert "0.0 0\n" == snippets.run(ANIMICA["usage"], space, animica)


def test_animica_idempotency(space: Space, animica: dict[str, Any]) -> None:
    """An idempotency key has the server carry a request out once."""
    for _ in range(2):
        snippets.run(ANIMICA["idempotency"], space, animica)

    assert ["order-12345"] * 2 == [sent.header("idempotency-key") for sent in space.requests]
    assert 1 == space.executed


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (401, "authentication_error"),
        (400, "invalid_request_error"),
        (402, "insufficient_quota"),
        (429, "rate_limit_error"),
        (403, "permission_error"),
        (500, "api_error"),
    ],
)
def test_animica_errors(space: Space, status: int, type: str) -> None:
    """An error has status, type, code, message and request id."""
    space.always(steps.error(status, "No.", code="because", headers=SOON))

    lines = snippets.run(ANIMICA["errors"], space, {}).splitlines()

    *first, last = lines
    assert [f"status: {status}", f"type: {type}", "code: because", "message: No."] == first
    assert last.startswith("request_id: req_")


def test_animica_webhook(space: Space) -> None:
    """A Flask app takes what is signed, and nothing else."""
    body, now = b'{"type": "payment.succeeded", "id": "evt_1"}', int(time.time())
    digest = hmac.new(b"whsec_xxx", b"%d.%s" % (now, body), hashlib.sha256).hexdigest()
    namespace: dict[str, Any] = {"__name__": "snippet"}
    snippets.run(ANIMICA["webhook"], space, namespace)

    http = namespace["app"].test_client()
    statuses = [
        http.post(
            "/animica/webhook", data=body, headers={"X-Animica-Signature": header}
        ).status_code
        for header in (f"t={now},v1={digest}", f"t={now},v1={'0' * 64}", "")
    ]

    assert [204, 400, 400] == statuses


OPENAI = {
    "animica": (ANIMICA["openai"], "You said: Hello from OpenAI's SDK!\n"),
    "andy": (ANDY["openai"], "You said: Explain neural networks\n"),
    "anannas": (ANANNAS["openai"], "You said: Explain quantum computing\n"),
}
# The official client, and ours in its place by a change of the import line.
OPENAI_CLIENTS = [
    ("animica", None),
    ("andy", None),
    ("anannas", None),
    ("animica", "animica_hooks.sdk:Animica"),
    ("andy", "animica_hooks.sdk.andy:Andy"),
    ("anannas", "animica_hooks.sdk.anannas:Anannas"),
]


@pytest.mark.parametrize(("provider", "module"), OPENAI_CLIENTS)
def test_openai(space: Space, provider: str, module: str | None) -> None:
    """What is written for the openai package runs with it, and with ours in its place."""
    code, expected = OPENAI[provider]
    namespace: dict[str, Any] = {}

    printed = snippets.run(code, space, namespace, modules={"openai": module} if module else None)
    namespace["client"].close()

    assert expected == printed
    assert provider == space.last.provider


def test_anthropic_from_the_environment(space: Space, anthropic: dict[str, Any]) -> None:
    """The key comes as an argument or from the environment, and a completion has its text."""
    namespace = ours(anthropic)
    snippets.run(ANTHROPIC["client from the environment"], space, namespace)
    snippets.run(ANTHROPIC["create with parameters"], space, namespace)

    assert " You said: Hello" == namespace["rsp"].completion
    assert "sk-ant-x" == space.last.header("x-api-key")
    assert "2023-06-01" == space.last.header("anthropic-version")


def test_anthropic_from_the_environment_async(space: Space, anthropic: dict[str, Any]) -> None:
    """The async client does the same."""
    namespace = ours(anthropic)
    snippets.run(ANTHROPIC["async client from the environment"], space, namespace)
    snippets.run(ANTHROPIC["create with parameters, async"], space, namespace)

    assert PARAMETERS == space.last.json


def test_anthropic_incremental_streaming(space: Space, anthropic: dict[str, Any]) -> None:
    """A stream's increments make up the text."""
    printed = snippets.run(ANTHROPIC["incremental streaming"], space, anthropic)

    assert " You said: HelloDone. Final text is:\n You said: Hello\n" == printed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("usage", COURT + "\n"),
        ("async usage", COURT + "\n"),
        ("streaming", " You said: Your prompt here"),
        ("async streaming", " You said: Your prompt here"),
    ],
)
def test_anthropic_completions(
    space: Space, anthropic: dict[str, Any], name: str, expected: str
) -> None:
    """Sync and async, whole and streamed, a completion is printed."""
    assert expected == snippets.run(ANTHROPIC[name], space, anthropic)


def test_anthropic_token_counting(space: Space, anthropic: dict[str, Any]) -> None:
    """A text's tokens are counted: 3, as the snippet says."""
    anthropic["Anthropic"] = ours({})["anthropic"].Anthropic
    snippets.run(ANTHROPIC["token counting"], space, anthropic)

    assert 3 == anthropic["client"].count_tokens("Hello world!")


@pytest.mark.parametrize(
    ("trouble", "first"),
    [
        (steps.hung_up(), "The server could not be reached"),
        (
            steps.error(429, headers=SOON),
            "A 429 status code was received; we should back off a bit.",
        ),
        (steps.error(400), "Another non-200-range status code was received"),
    ],
    ids=["unreachable", "429", "400"],
)
def test_anthropic_errors(
    space: Space, anthropic: dict[str, Any], trouble: steps.Step, first: str
) -> None:
    """Each kind of error is caught where the snippet expects it."""
    space.always(trouble)

    lines = snippets.run(ANTHROPIC["errors"], space, anthropic).splitlines()

    assert first == lines[0]
    if first.startswith("Another"):
        assert "400" == lines[1]
    if first.startswith("The server"):
        assert lines[1] not in {"None", ""}


def test_anthropic_retries(space: Space, anthropic: dict[str, Any]) -> None:
    """Five retries are tried where five are asked for."""
    space.script(*[steps.error(500, headers=SOON)] * 5)

    snippets.run(ANTHROPIC["retries"], space, anthropic)

    assert 6 == len(space.requests)


def test_anthropic_timeouts(space: Space, anthropic: dict[str, Any]) -> None:
    """Timeouts are taken as a number and as httpx has them."""
    snippets.run(ANTHROPIC["timeouts"], space, anthropic)

    assert 1 == space.executed


def test_anthropic_default_headers(space: Space, anthropic: dict[str, Any]) -> None:
    """The version that is sent can be overridden."""
    snippets.run(ANTHROPIC["default headers"], space, anthropic)
    anthropic["client"].completions.create(**PARAMETERS)

    assert "My-Custom-Value" == space.last.header("anthropic-version")


def test_anthropic_client_options(space: Space, anthropic: dict[str, Any]) -> None:
    """A client takes its URL, proxies and transport."""
    snippets.run(ANTHROPIC["client options"], space, anthropic)
    anthropic["client"].close()

    assert [] == space.requests


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ANDY["requests"], "You said: Write a short poem about artificial intelligence\n"),
        (ANDY["headers"], ""),
        (ANDY["streaming"], "You said: Tell me a detailed story"),
        (ANANNAS["requests"], "You said: Explain quantum computing\n"),
    ],
    ids=["andy", "andy-headers", "andy-streaming", "anannas"],
)
def test_requests(space: Space, code: str, expected: str) -> None:
    """What is written for the requests package finds on the test server what it expects."""
    assert expected == snippets.run(code, space, {})


def test_andy_errors(space: Space) -> None:
    """A call by hand that meets the rate limit and an error is answered at its third attempt."""
    slept: list[float] = []
    namespace: dict[str, Any] = {}
    snippets.run(ANDY["errors"], space, namespace)
    namespace["sleep"] = slept.append
    space.script(steps.error(429), steps.error(500))

    message = {"role": "user", "content": "Hello"}
    answer = namespace["safe_api_call"]({"model": "andy-4", "messages": [message]})

    assert "You said: Hello" == answer["choices"][0]["message"]["content"]
    assert [1, 1] == slept
