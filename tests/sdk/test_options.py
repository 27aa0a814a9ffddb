"""What a client is told is checked when it is told: clearly, and before anything is sent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
import msgspec
import pytest
from apiserver import Space

from animica_hooks.errors import APIRequestError, ConfigurationError
from animica_hooks.sdk import Animica, AsyncAnimica, Timeout
from animica_hooks.sdk.address import Address
from animica_hooks.sdk.codec import decode, encode
from animica_hooks.sdk.endpoint import decoder
from animica_hooks.sdk.timeout import timeout_from
from animica_hooks.sdk.transports.borrowed import AsyncBorrowedTransport

CHAT: dict[str, Any] = {"model": "anm-fast-8b", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://api.example.com/v1", "https://api.example.com", "/v1"),
        ("https://api.example.com/v1/", "https://api.example.com", "/v1"),
        ("HTTP://Api.Example.com:80", "http://api.example.com", ""),
        ("http://localhost:8083", "http://localhost:8083", ""),
        ("http://[::1]:8000/v1", "http://[::1]:8000", "/v1"),
        ("https://h/api/andy/v1", "https://h", "/api/andy/v1"),
    ],
)
def test_a_base_url_is_taken_apart(url: str, origin: str, path: str) -> None:
    """Origin and path, with the standard ports left out."""
    address = Address(url)

    assert (origin, path) == (address.origin, address.path)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:whsec_CANARY@api.example.com",
        "https://whsec_CANARY@api.example.com/v1",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/v1/%2e%2e/admin",
        "https://api.example.com/v1%2f..",
        "https://api.example.com//evil",
        "//evil.example.com",
        "evil.example.com",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
        "https://api.example.com/v1?key=whsec_CANARY",
        "https://api.example.com/v1#x",
        " https://api.example.com",
        "https://api.example.com/v1\n",
        "https://api.example.com/v 1",
        "https://api.example.com\\@evil.example.com",
        "https://bücher.example",
        "https://api.example.com:99999",
        "https://api.example.com:0",
        "https://-x",
        "",
        17,
        b"https://api.example.com",
        # Letters that are s and i to those who ignore case.
        "https://\u017fample.com",
        "https://api.example.com/\u0130",
    ],
)
def test_a_base_url_that_may_mislead_is_refused(url: Any) -> None:
    """Credentials, ``..``, ``//``, white space, other schemes: refused, and never repeated."""
    with pytest.raises(ConfigurationError) as caught:
        Animica("anm_test_x", base_url=url)

    assert "CANARY" not in str(caught.value)


def test_a_path_beside_the_base_is_reached() -> None:
    """``../`` in a method's path, not a user's, is beside the base's last part."""
    assert "/api/andy/pool_status" == Address("https://h/api/andy/v1").target("../pool_status")
    assert "/v1/models" == Address("https://h/v1").target("/models")


@pytest.mark.parametrize(
    "key", ["", "   ", "a b\n", "anm_live_CANARY\r\nX-Evil: 1", " anm_live_CANARY", "clé", 7]
)
def test_a_key_that_can_be_none_is_refused(key: Any) -> None:
    """Blank, with white space around it, or not of characters that a header has."""
    with pytest.raises(ConfigurationError) as caught:
        Animica(key)

    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("kind", [Animica, AsyncAnimica])
def test_the_key_comes_from_the_environment(
    kind: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an argument it is ANIMICA_API_KEY; without that, the error says what to do."""
    monkeypatch.delenv("ANIMICA_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="set ANIMICA_API_KEY"):
        kind()
    monkeypatch.setenv("ANIMICA_API_KEY", "  ")
    with pytest.raises(ConfigurationError, match=r"from ANIMICA_API_KEY\) is blank"):
        kind()
    monkeypatch.setenv("ANIMICA_API_KEY", "anm_test_x")

    assert "https://api.animica.org/v1" == kind().base_url


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (5, (5.0, 5.0, 5.0, 5.0)),
        (None, (None, None, None, None)),
        (Timeout(60.0, read=5.0, write=10.0, connect=2.0), (2.0, 5.0, 10.0, 60.0)),
        (httpx.Timeout(60.0, read=5.0, write=10.0, connect=2.0), (2.0, 5.0, 10.0, 60.0)),
        (httpx2.Timeout(60.0, read=None), (60.0, None, 60.0, 60.0)),
    ],
)
def test_timeouts_are_seconds_or_objects(given: Any, expected: tuple[Any, ...]) -> None:
    """One number for all steps, ours, or those of httpx."""
    assert expected == timeout_from(given).as_tuple()


def test_ten_minutes_is_the_default() -> None:
    """A long answer of a large model takes its time; a connection does not."""
    assert Timeout(600.0, connect=10.0) == Animica("x").timeout


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"timeout": True},
        {"timeout": "5"},
        {"timeout": 1e7},
        {"timeout": 10**400},
        {"deadline": 1e308},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"deadline": 0},
        {"deadline": "soon"},
        {"first_token_timeout": -1},
        {"default_headers": {"x y": "1"}},
        {"default_headers": {"x": "a\r\nb"}},
        {"default_headers": {"content-length": "1"}},
        {"default_query": {"x": "\ud800"}},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """At the client, and at ``with_options``, in the same words."""
    with pytest.raises(ConfigurationError):
        Animica("x", **options)
    with pytest.raises(ConfigurationError):
        Animica("x").with_options(**options)


@pytest.mark.parametrize("where", ["client", "copy", "call", "call over client"])
def test_options_hold_wherever_they_are_given(where: str) -> None:
    """At the client, its copy or the call, which has the last word; none of them is sent."""
    wanted = {"timeout": 7, "deadline": 30, "first_token_timeout": 3, "max_retries": 5}
    other = dict.fromkeys(wanted, 1)
    client = Animica("x", **{"client": wanted, "call over client": other}.get(where, {}))
    if where == "copy":
        client = client.with_options(**wanted)
    began = time.monotonic()
    request, policy = client._settings.request(
        "POST", "/x", {**wanted} if where.startswith("call") else {}, stream=True
    )

    assert request.deadline is not None
    assert 0 <= request.deadline - began - 30 < 5
    assert (Timeout(7), 3, 5) == (request.timeout, policy.first_token_timeout, policy.max_retries)
    assert b"{}" == request.body


def test_a_client_brings_its_own_connections() -> None:
    """``http_client`` beside what it would override is a mistake; so is one of the other kind."""
    with httpx2.Client() as client:
        with pytest.raises(ConfigurationError, match="brings its own connections"):
            Animica("x", http_client=client, proxy="http://127.0.0.1:1")
        with pytest.raises(ConfigurationError, match="must be of class AsyncClient"):
            AsyncBorrowedTransport(client, None, lambda: None)


@pytest.mark.parametrize(
    "proxy",
    ["127.0.0.1:1", "socks5://127.0.0.1:1", "http://", "http://h:0", "http://u:\udcff@h:1"],
)
def test_a_proxy_that_is_none_is_refused(proxy: str) -> None:
    """The error says of which form they are, and what to do for others."""
    with pytest.raises(ConfigurationError, match="http://host:port"):
        Animica("x", proxy=proxy)


@pytest.mark.parametrize("proxy", [5, b"http://h:1", {"all": 5}])
def test_a_proxy_of_another_type_is_refused(proxy: Any) -> None:
    """At the client, not at its first request."""
    with pytest.raises(ConfigurationError, match="a proxy must be a URL"):
        Animica("x", proxy=proxy)


class Opaque:
    """What has no JSON."""


def circular() -> list[Any]:
    """A list that contains itself."""
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "request.x is NaN"),
        ({"a": [1.0, math.inf]}, r"request.x.a\[1\] is NaN"),
        (Opaque(), "request.x is of type Opaque"),
        ([{"y": Opaque()}], r"request.x\[0\].y is of type Opaque"),
        ("\ud800", "surrogates"),
        (circular(), "nested too deeply"),
        (iter([1, {"y": [math.nan]}]), r"an iterator whose \[1\].y\[0\] is NaN"),
        ([iter([iter([math.inf])])], r"an iterator whose \[0\] is NaN"),
    ],
)
def test_what_has_no_json_is_refused_before_anything_is_sent(
    space: Space, value: Any, says: str
) -> None:
    """The message has the place and the type, never the value."""
    client = Animica(space.key, base_url=space.animica)
    with pytest.raises(APIRequestError, match=says) as caught:
        client.chat_completions(**CHAT, x=value)

    assert None is caught.value.status
    assert [] == space.requests
    client.close()


@dataclass
class Point:
    x: int


class Pydanticlike:
    def model_dump(self, **_: object) -> dict[str, int]:
        return {"x": 1}


def test_what_python_programs_have_is_encoded() -> None:
    """Generators, dataclasses, pydantic's models, tuples, null within: as JSON."""
    body = {
        "a": (i for i in range(2)),
        "b": Point(1),
        "c": Pydanticlike(),
        "d": (None, True),
        "e": {"f": None},
    }

    assert {
        "a": [0, 1],
        "b": {"x": 1},
        "c": {"x": 1},
        "d": [None, True],
        "e": {"f": None},
    } == msgspec.json.decode(encode(body))


@pytest.mark.parametrize(
    "options",
    [
        {"idempotency_key": ""},
        {"idempotency_key": "a\r\nX-Evil: 1"},
        {"idempotency_key": 5},
        {"extra_headers": {"X": "a\nb"}},
        {"extra_headers": {"X:": "a"}},
        {"extra_headers": {"": "a"}},
        {"extra_headers": {"X": "€"}},
        {"extra_headers": {"Content-Length": "5"}},
        {"extra_headers": {"transfer-encoding": "chunked"}},
        {"extra_headers": {"HOST": "other.example.com"}},
        {"extra_headers": {"Content-Length": None}},
        {"extra_headers": [("X", "a")]},
        {"extra_query": "a=b"},
        {"extra_body": 5},
        {"extra_query": {"a": "\ud800"}},
        {"extra_query": {"\ud800": "a"}},
    ],
)
def test_headers_can_not_be_broken_out_of(space: Space, options: dict[str, Any]) -> None:
    """Line ends, and where a request ends or goes to, are refused before anything is sent."""
    with Animica(space.key, base_url=space.animica) as client, pytest.raises(APIRequestError):
        client.chat_completions(**CHAT, **options)

    assert [] == space.requests


@pytest.mark.parametrize(
    ("odd", "check"),
    [
        (b'{"choices": null}', lambda c: c.choices == []),
        (b'{"created": 1677652288.75}', lambda c: c.created == 1677652288),
        (b'{"created": "1677652288"}', lambda c: c.created == 1677652288),
        (b'{"id": 7}', lambda c: c.id == "7"),
        (b'{"id": null, "created": null}', lambda c: (c.id, c.created) == ("", 0)),
        (b"{}", lambda c: c.id == "" and c.choices == [] and c.usage is None),
        (b'{"choices": [null, {"index": 1}]}', lambda c: c.choices[1].message.content is None),
        (b'{"choices": {"a": 1}}', lambda c: c.choices == [] and c.to_dict() != {}),
        (b'{"choices": [{"message": {"content": [1]}}]}', lambda c: bool(c.choices[0])),
        (b'{"usage": {"total_tokens": "x"}}', lambda c: c.usage.total_tokens == "x"),
        (b'{"created": NaN}', lambda c: c.created != c.created),
        (b'{"usage": 3}', lambda c: c.usage.total_tokens == 0),
    ],
)
def test_odd_but_usable_data_is_no_exception(odd: bytes, check: Callable[[Any], bool]) -> None:
    """What compatible servers send is taken as far as it goes."""
    assert check(decoder("openai.ChatCompletion")(odd))


def test_what_is_not_documented_is_kept() -> None:
    """Unknown fields are read as attributes, at any depth, and are all in ``to_dict()``."""
    sent = b'{"id":"1","x":{"y":2},"choices":[{"message":{"content":"a","z":3},"w":4}]}'
    answer = decoder("openai.ChatCompletion")(sent)

    assert ({"y": 2}, 3, 4) == (answer.x, answer.choices[0].message.z, answer.choices[0].w)
    second = decoder("openai.ChatCompletion")(b'{"choices":[{"v":1},{"v":2}]}').choices[1]
    assert ({"x": {"y": 2}}, 2) == (answer.extra, second.v)
    assert decode(sent) == answer.to_dict()
    assert "a" == answer["choices"][0]["message"]["content"]
    with pytest.raises(AttributeError, match="has no 'q'"):
        _ = answer.q


def test_an_answer_is_part_of_the_next_request() -> None:
    """A message of the model's goes back as it came, without fields that are not set."""
    answer = decoder("openai.ChatCompletion")(
        b'{"choices":[{"message":{"role":"assistant","content":"a"}}]}'
    )

    assert b'{"m":[{"role":"assistant","content":"a"}]}' == encode(
        {"m": [answer.choices[0].message]}
    )
