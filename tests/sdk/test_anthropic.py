"""Anthropic's clients over real HTTP, the sync and the async one through the same paces."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from apiserver import Space, steps
from client_kinds import collected, result

from animica_hooks import errors
from animica_hooks.errors import APIError, ConfigurationError
from animica_hooks.sdk import anthropic
from animica_hooks.sdk.endpoint import decoder

ASK: dict[str, Any] = {
    "model": "claude-3-opus",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello there"}],
}
SAID = "You said: Hello there"
PROMPT: dict[str, Any] = {
    "model": "claude-2",
    "max_tokens_to_sample": 100,
    "prompt": f"{anthropic.HUMAN_PROMPT} Hello there{anthropic.AI_PROMPT}",
}
SOON = steps.retry_after("milliseconds", 0.001)


@pytest.fixture(params=[anthropic.Anthropic, anthropic.AsyncAnthropic])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def made(kind: Any, space: Space, **options: Any) -> AsyncIterator[Any]:
    """A client of this space, closed at the end."""
    client = kind(**{"api_key": space.key, "base_url": space.anthropic, **options})
    try:
        yield client
    finally:
        await result(client.close())


async def test_messages_are_typed(kind: Any, space: Space) -> None:
    """Text, stop reason, usage and the request's id; and all of it as a dict."""
    async with made(kind, space) as client:
        message = await result(client.messages.create(**ASK))

    assert ("message", "assistant", "claude-3-opus") == (message.type, message.role, message.model)
    assert [("text", SAID)] == [(block.type, block.text) for block in message.content]
    assert ("end_turn", None) == (message.stop_reason, message.stop_sequence)
    assert (2, 5) == (message.usage.input_tokens, message.usage.output_tokens)
    assert message.request_id.startswith("req_")
    assert message.request_id == message.response_headers["request-id"]
    assert {"input_tokens": 2, "output_tokens": 5} == message.to_dict()["usage"]


async def test_older_completions_are_typed(kind: Any, space: Space) -> None:
    """The text, why it ended, and the request's id."""
    async with made(kind, space) as client:
        whole = await result(client.completions.create(**PROMPT))
        short = await result(client.completions.create(**{**PROMPT, "max_tokens_to_sample": 2}))

    assert (f" {SAID}", "stop_sequence") == (whole.completion, whole.stop_reason)
    assert (" You said", "max_tokens") == (short.completion, short.stop_reason)
    assert whole.request_id.startswith("req_")


async def test_what_is_sent(kind: Any, space: Space) -> None:
    """The key in its header, the version, what is unknown; None is left out."""
    async with made(kind, space, default_headers={"X-A": "1"}, default_query={"q": 1}) as client:
        await result(
            client.messages.create(
                **ASK,
                system=None,
                service_tier="auto",
                extra_body={"max_tokens": 7, "newer": {"a": 1}},
                extra_headers={"anthropic-beta": "one,two", "X-A": None},
                extra_query={"beta": True},
            )
        )
    sent = space.last

    assert {**ASK, "max_tokens": 7, "service_tier": "auto", "newer": {"a": 1}} == sent.json
    assert ("POST", "/v1/messages", "q=1&beta=true") == (sent.method, sent.path, sent.query)
    assert (space.key, "2023-06-01") == (sent.header("x-api-key"), sent.header("anthropic-version"))
    assert (False, False) == (sent.has("authorization"), sent.has("x-a"))
    assert ("one,two", True) == (sent.header("anthropic-beta"), sent.has("idempotency-key"))


async def test_the_version_can_be_overridden(kind: Any, space: Space) -> None:
    """On the client, on a copy, and for a call; each time one header is sent."""
    async with made(kind, space, default_headers={"Anthropic-Version": "a"}) as client:
        await result(client.messages.create(**ASK))
        copy = client.with_options(default_headers={"anthropic-version": "b"})
        await result(copy.messages.create(**ASK))
        await result(copy.messages.create(**ASK, extra_headers={"ANTHROPIC-VERSION": "c"}))

    sent = [
        [value for name, value in request.headers if name == "anthropic-version"]
        for request in space.requests
    ]
    assert [["a"], ["b"], ["c"]] == sent


async def test_errors_are_the_one_tree(kind: Any, space: Space) -> None:
    """Each error of the tree is an attribute of the module, and the very same class."""
    tree = [
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, APIError)
    ]

    assert len(tree) > 15
    assert tree == [getattr(anthropic, found.__name__) for found in tree]
    assert {found.__name__ for found in tree} <= {*anthropic.__all__}


@pytest.mark.parametrize(
    ("status", "expected", "type"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, anthropic.InsufficientCreditsError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.RequestTooLargeError, "request_too_large"),
        (422, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_each_status_is_an_error_of_its_own(
    kind: Any, space: Space, status: int, expected: type[APIError], type: str, streamed: bool
) -> None:
    """With Anthropic's type and message, and the request's id; messages and completions alike."""
    space.always(steps.error(status, "It is so."))
    async with made(kind, space, max_retries=0) as client:
        for create, asked in ((client.messages.create, ASK), (client.completions.create, PROMPT)):
            with pytest.raises(APIError) as caught:
                await result(create(**asked, stream=streamed))
            error = caught.value

            assert expected is error.__class__
            assert (status, type, "It is so.") == (error.status, error.type, error.message)
            assert error.request_id is not None
            assert error.request_id == error.headers["request-id"]  # type: ignore[index]


async def test_overload_is_retried_with_the_same_key(kind: Any, space: Space) -> None:
    """529, 429 and 500 are tried again; the work is done once."""
    space.script(*[steps.error(status, headers=SOON) for status in (529, 429, 500)])
    async with made(kind, space) as client:
        message = await result(client.with_options(max_retries=3).messages.create(**ASK))
    keys = {request.header("idempotency-key") for request in space.requests}

    assert SAID == message.content[0].text
    assert (4, 1, 1) == (len(space.requests), len(keys), space.executed)


async def test_an_unreachable_api_is_a_connection_error(kind: Any, space: Space) -> None:
    """Nobody listening, and a connection that is closed unanswered; the cause is told."""
    space.always(steps.hung_up())
    async with made(kind, space, max_retries=0) as client:
        with pytest.raises(anthropic.APIConnectionError) as closed:
            await result(client.messages.create(**ASK))
    async with made(kind, space, max_retries=0, base_url="http://127.0.0.1:1") as client:
        with pytest.raises(anthropic.APIConnectionError) as refused:
            await result(client.messages.create(**ASK))

    assert isinstance(closed.value.__cause__, EOFError)
    assert isinstance(refused.value.__cause__, OSError)


async def test_raw_responses_have_limits(kind: Any, space: Space) -> None:
    """Status, headers, the request's id and the rate limits; the client has the last ones."""
    space.requests_per_minute = 60
    async with made(kind, space) as client:
        raw = await result(client.messages.with_raw_response.create(**ASK))
        counted = await result(
            client.messages.with_raw_response.count_tokens(
                model=ASK["model"], messages=ASK["messages"]
            )
        )
        text = await result(client.completions.with_raw_response.create(**PROMPT))
        seen = client.rate_limit

    limit = raw.rate_limit
    assert (200, 0, SAID) == (raw.status_code, raw.retries_taken, raw.parse().content[0].text)
    assert raw.request_id == raw.parse().request_id == raw.headers["Request-Id"]
    assert (60, 59) == (limit.limit_requests, limit.remaining_requests)
    assert (60_000, 59_990) == (limit.limit_tokens, limit.remaining_tokens)
    assert 0 < limit.reset_requests_s <= 60
    assert (2, f" {SAID}") == (counted.parse().input_tokens, text.parse().completion)
    assert 57 == seen.remaining_requests


async def test_the_limit_that_is_met_is_told(kind: Any, space: Space) -> None:
    """429 says how long to wait, and its headers say of what."""
    space.requests_per_minute = 1
    async with made(kind, space, max_retries=0) as client:
        await result(client.messages.create(**ASK))
        with pytest.raises(anthropic.RateLimitError) as caught:
            await result(client.messages.create(**ASK))

    assert 0 < (caught.value.retry_after or 0) <= 60
    assert caught.value.headers is not None
    assert "0" == caught.value.headers["anthropic-ratelimit-requests-remaining"]


async def test_tokens_of_a_request_are_counted(kind: Any, space: Space) -> None:
    """With its system prompt, and whatever else the API counts."""
    async with made(kind, space) as client:
        counted = await result(
            client.messages.count_tokens(
                model="claude-3-opus", messages=ASK["messages"], system="Be brief.", tools=[]
            )
        )

    assert 5 == counted.input_tokens
    assert counted.request_id.startswith("req_")
    assert "/v1/messages/count_tokens" == space.last.path
    assert [] == space.last.json["tools"]


async def test_tokens_of_a_text_are_counted(kind: Any, space: Space) -> None:
    """What a message takes by itself is left out, and is asked for once for each model."""

    def more(counted: dict[str, Any]) -> None:
        counted["input_tokens"] += 7

    space.always(steps.edited(more))
    async with made(kind, space) as client:
        found = [await result(client.count_tokens(text)) for text in ("Hello world!", "a b", "")]
        other = await result(client.count_tokens("a b c", model="claude-3-opus"))
        copy = await result(client.with_options(max_retries=0).count_tokens("a"))

    assert ([3, 2, 0], 3, 1) == (found, other, copy)
    assert 6 == len(space.requests)
    assert "claude-3-opus" == space.requests[4].json["model"]


async def test_an_uncounted_text_is_an_error(kind: Any, space: Space) -> None:
    """An estimate that nobody made is not given."""
    async with made(kind, space) as client:
        with pytest.raises(anthropic.NotFoundError):
            await result(client.count_tokens("Hello", model="unheard-of"))


@pytest.mark.parametrize(
    ("odd", "check"),
    [
        ("{}", lambda m: m.id == "" and m.content == [] and m.usage.output_tokens == 0),
        ('{"content": null, "usage": null}', lambda m: m.content == [] and m.usage is not None),
        ('{"content": "text"}', lambda m: m.content == [] and m["content"] == "text"),
        ('{"content": [null, {"type": "text"}]}', lambda m: m.content[1].text is None),
        ('{"content": [null]}', lambda m: m.content[0].to_dict() == {}),
        ('{"id": 7, "usage": {"input_tokens": 2.0}}', lambda m: m.usage.input_tokens == 2),
        ('{"content": [{"type": "text", "text": 5}]}', lambda m: m.content[0].text == "5"),
        ('{"content": [{"type": "tool_use", "input": "x"}]}', lambda m: m.content[0].input == "x"),
        ('{"usage": {"output_tokens": NaN}}', lambda m: m.usage.output_tokens is not None),
    ],
)
async def test_odd_but_usable_messages_are_no_errors(
    kind: Any, space: Space, odd: str, check: Any
) -> None:
    """What servers leave out, or send as another type, is taken as far as it goes."""
    space.script(steps.reply(odd))
    async with made(kind, space) as client:
        message = await result(client.messages.create(**ASK))

    assert check(message)
    assert message.request_id.startswith("req_")


def test_what_was_left_out_has_no_attributes() -> None:
    """An object that the API did not send is empty: no field of it is unknown, none is invented."""
    event = decoder("anthropic.MessageEvent")(b'{"type": "message_stop"}')

    assert {} == event.delta.to_dict() == event.delta.extra
    with pytest.raises(AttributeError, match="has no 'newer'"):
        _ = event.delta.newer


@pytest.mark.parametrize(
    "step",
    [
        steps.reply("<html>", content_type="text/html"),
        steps.reply('{"id": "x"'),
        steps.reply("[1]"),
        steps.reply(b""),
        steps.reply('{"content": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    ],
)
async def test_an_answer_that_is_not_usable_is_told(kind: Any, space: Space, step: Any) -> None:
    """Not JSON, or no object, with the request's id; and where a stream was asked for, too."""
    space.always(step)
    async with made(kind, space) as client:
        for create, asked in ((client.messages.create, ASK), (client.completions.create, PROMPT)):
            for streamed in (False, True):
                with pytest.raises(anthropic.APIResponseError) as caught:
                    await result(create(**asked, stream=streamed))

                assert caught.value.request_id is not None


BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    {"type": "text", "text": "Look.", "citations": None},
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}, "caller": {"a": 1}},
    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted": "x"}]},
    {"type": "unheard_of", "parts": [1, None, {"b": 2.5}]},
    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": None}},
]


async def test_blocks_go_back_as_they_came(kind: Any, space: Space) -> None:
    """Signatures, empty inputs, and what this package does not know: the API wants it whole."""

    def change(message: dict[str, Any]) -> None:
        message["content"] = BLOCKS

    space.script(steps.edited(change))
    async with made(kind, space) as client:
        message = await result(client.messages.create(**ASK))
        back = {"role": "assistant", "content": message.content}
        turns = [*ASK["messages"], back, *ASK["messages"]]
        await result(client.messages.create(**{**ASK, "messages": iter(turns)}))
        again = space.last.json["messages"]
        changed = message.content[2]
        changed.text = "Look here."
        await result(client.messages.create(**{**ASK, "messages": turns}))

    def told(block: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in block.items() if value is not None}

    assert [told(block) for block in BLOCKS] == again[1]["content"]
    assert ASK["messages"] == again[:1] == again[2:]
    assert "Look here." == space.last.json["messages"][1]["content"][2]["text"]
    assert ("c2ln", [1, None, {"b": 2.5}]) == (
        message.content[0].signature,
        message.content[5].parts,
    )


def test_a_key_is_needed(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the error says where it comes from; blank ones are none."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="set ANTHROPIC_API_KEY"):
        kind()
    monkeypatch.setenv("ANTHROPIC_API_KEY", " ")
    with pytest.raises(ConfigurationError, match=r"from ANTHROPIC_API_KEY\) is blank"):
        kind()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-x")

    assert "https://api.anthropic.com" == kind().base_url
    assert ("\n\nHuman:", "\n\nAssistant:") == (kind.HUMAN_PROMPT, kind.AI_PROMPT)


async def test_the_key_is_nowhere_else(kind: Any, space: Space) -> None:
    """Not in a repr, an error or its pickle, even where the API repeats it."""
    key = "sk-ant-CANARY-0123456789"
    space.always(steps.error(401, f"invalid x-api-key: {key}"))
    async with made(kind, space, api_key=key) as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await result(client.messages.create(**ASK))
        shown = [repr(client), repr(client.messages), repr(client._settings.sent_headers)]

    told = [*shown, str(caught.value), repr(vars(caught.value)), repr(caught.value.response)]
    assert [] == [text for text in told if key in text]
    assert key.encode() not in pickle.dumps(caught.value)


async def test_options_of_a_call_are_checked_first(kind: Any, space: Space) -> None:
    """What has no JSON, or breaks out of a header, is refused before anything is sent."""
    async with made(kind, space) as client:
        for options in ({"x": float("nan")}, {"x": object()}, {"extra_headers": {"X": "a\nb"}}):
            with pytest.raises(anthropic.APIRequestError):
                await result(client.messages.create(**ASK, **options))
        await result(client.close())
        with pytest.raises(anthropic.ClientClosed):
            await collected(client.messages.create(**ASK, stream=True))

    assert [] == space.requests
