"""What a client and its calls can be told: checked once, and put together into requests.

``Settings`` are a client's, with those of ``with_options`` laid over them; a call's own are taken
out of its keyword arguments, where the rest is the request's body.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, final

from animica_hooks.errors import APIRequestError, ConfigurationError
from animica_hooks.sdk import flow, retrying, timeout
from animica_hooks.sdk.address import Address
from animica_hooks.sdk.timeout import UNSET, Timeout, check_seconds, timeout_from

if TYPE_CHECKING:
    import ssl

    from animica_hooks.sdk.timeout import Unset

# https://www.rfc-editor.org/rfc/rfc9110#name-tokens
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# What says where a request goes and where it ends is the transport's to write: twice, proxies and
# servers would read it in two ways.
_OURS = frozenset({"content-length", "host", "transfer-encoding"})

# Headers to send, by name; None leaves one out.
GivenHeaders = Mapping[str, str | None]
Query = Mapping[str, object]


class CallOptions(TypedDict, total=False):
    """Options of one call, as keyword arguments of every method.

    Keys:
        timeout: of each step, in seconds or as a ``Timeout``.
        deadline: seconds for the whole call, with its retries and its stream.
        first_token_timeout: seconds for a stream to begin.
        max_retries: how many more requests may follow a failed one.
        idempotency_key: instead of one that is made up.
        extra_headers: more headers; None leaves one out.
        extra_query: more of the query.
        extra_body: more of the body, laid over the rest.
    """

    timeout: float | Timeout | None
    deadline: float | None
    first_token_timeout: float | None
    max_retries: int
    idempotency_key: str
    extra_headers: GivenHeaders
    extra_query: Query
    extra_body: Mapping[str, object]


class ClientOptions(TypedDict, total=False):
    """What ``base.BaseClient`` takes by name, for providers that take more than that."""

    max_retries: int | Unset
    deadline: float | None
    first_token_timeout: float | None
    default_headers: GivenHeaders | None
    default_query: Query | None
    proxy: str | Mapping[str, str | None] | None
    proxies: str | Mapping[str, str | None] | None
    ssl_context: ssl.SSLContext | None
    http_client: object
    transport: object


_CALL_OPTIONS = CallOptions.__optional_keys__


def _rand() -> float:
    # Only a failure needs it, and importing it takes 3 ms.
    from random import random

    return random()  # noqa: S311 - jitter is no secret


def check_retries(value: object) -> int:
    """Return a number of retries.

    Raises:
        ConfigurationError: it is no whole number from 0.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigurationError("max_retries must be a whole number, 0 or more.")


def check_header(name: object, value: object) -> tuple[str, str]:
    """Return a header that is safe to send.

    Raises:
        APIRequestError: it could break out of its line, or is the transport's own; the message has
            its name only.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise APIRequestError("a header's name must be letters, digits and hyphens.")
    if name.lower() in _OURS:
        raise APIRequestError(f"the header {name} is written by the client: leave it out.")
    text = value if isinstance(value, str) else str(value)
    if not text.isprintable() or not _is_latin(text) or text != text.strip(" "):
        raise APIRequestError(f"the header {name} has characters that a header can not have.")
    return name, text


def _is_latin(text: str) -> bool:
    return text.isascii() or all(ord(sign) < 256 for sign in text)


def encode_query(*parts: Query | None) -> str:
    """Return the query of these, later ones laid over earlier, with its question mark.

    Raises:
        APIRequestError: it has text that is not UTF-8.
    """
    merged = {name: value for part in parts if part for name, value in part.items()}
    pairs = [(name, _word(one)) for name, value in merged.items() for one in _several(value)]
    if not pairs:
        return ""
    from urllib.parse import quote, urlencode

    try:
        return "?" + urlencode(pairs, quote_via=quote)
    except UnicodeEncodeError:
        raise APIRequestError("the query has text with lone surrogates, not UTF-8.") from None


def _several(value: object) -> Iterable[object]:
    if value is None or value is UNSET:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@final
class Settings:
    """A client's settings, checked; copies with changes are cheap. Its repr has no secret."""

    __slots__ = (
        "address",
        "deadline",
        "default_headers",
        "default_query",
        "first_token_timeout",
        "key",
        "max_retries",
        "own_headers",
        "query",
        "sent_headers",
        "timeout",
    )

    def __init__(
        self,
        *,
        address: Address,
        key: str | None,
        own_headers: Iterable[tuple[str, str]],
    ) -> None:
        self.address = address
        self.key = key
        self.own_headers = tuple(own_headers)
        self.timeout = timeout.DEFAULT
        self.max_retries = retrying.MAX_RETRIES
        self.deadline: float | None = None
        self.first_token_timeout: float | None = None
        self.default_headers: dict[str, str | None] = {}
        self.default_query: dict[str, object] = {}
        self._put_together()

    def __repr__(self) -> str:
        return f"<Settings of {self.address.origin}>"

    def changed(
        self,
        *,
        timeout: object = UNSET,
        max_retries: object = UNSET,
        deadline: object = UNSET,
        first_token_timeout: object = UNSET,
        default_headers: GivenHeaders | None = None,
        default_query: Query | None = None,
    ) -> Settings:
        """Return these settings with changes; headers and query are laid over those there are.

        Raises:
            ConfigurationError: a setting makes no sense.
        """
        new = object.__new__(Settings)
        for name in Settings.__slots__:
            setattr(new, name, getattr(self, name))
        if timeout is not UNSET:
            new.timeout = timeout_from(timeout)
        if max_retries is not UNSET:
            new.max_retries = check_retries(max_retries)
        if deadline is not UNSET:
            new.deadline = check_seconds("deadline", deadline)
        if first_token_timeout is not UNSET:
            new.first_token_timeout = check_seconds("first_token_timeout", first_token_timeout)
        if default_headers or default_query:
            new.default_headers = {**self.default_headers, **(default_headers or {})}
            new.default_query = {**self.default_query, **(default_query or {})}
            new._put_together()
        return new

    def _put_together(self) -> None:
        """Make once what every request begins with."""
        try:
            self.sent_headers = _overlaid(list(self.own_headers), self.default_headers)
            self.query = encode_query(self.default_query)
        except APIRequestError as error:
            raise ConfigurationError(f"default_headers or default_query: {error}") from None

    def request(
        self, method: str, path: str, params: dict[str, Any], *, stream: bool
    ) -> tuple[flow.Request, flow.Policy]:
        """Return the request of one call and how to carry it through.

        Args:
            method: of HTTP.
            path: below the base URL.
            params: the call's keyword arguments: options are taken out, None is left out.
            stream: the answer is to be streamed.

        Raises:
            APIRequestError: it can not be sent.
            ConfigurationError: an option makes no sense.
        """
        options: dict[str, Any] = {}
        if not _CALL_OPTIONS.isdisjoint(params):
            given = {name: params.pop(name) for name in _CALL_OPTIONS & params.keys()}
            options = {name: value for name, value in given.items() if value is not UNSET}
            _check_mappings(options)
        body = None
        query = self.query
        if method == "POST":
            body = _body(params, options.get("extra_body"))
            if extra := options.get("extra_query"):
                query = encode_query(self.default_query, extra)
        elif params or "extra_query" in options:
            query = encode_query(self.default_query, params, options.get("extra_query"))
        headers, repeatable = self._headers(method, options)
        deadline = self.deadline
        if "deadline" in options:
            deadline = check_seconds("deadline", options["deadline"])
        request = flow.Request(
            address=self.address,
            method=method,
            target=self.address.target(path) + query,
            headers=headers,
            body=body,
            timeout=timeout_from(options["timeout"]) if "timeout" in options else self.timeout,
            deadline=None if deadline is None else time.monotonic() + deadline,
            stream=stream,
        )
        return request, self._policy(options, repeatable=repeatable, stream=stream)

    def _policy(self, options: dict[str, Any], *, repeatable: bool, stream: bool) -> flow.Policy:
        first_token = options.get("first_token_timeout", self.first_token_timeout)
        retries = options.get("max_retries")
        return flow.Policy(
            max_retries=self.max_retries if retries is None else check_retries(retries),
            repeatable=repeatable,
            first_token_timeout=(
                check_seconds("first_token_timeout", first_token) if stream else None
            ),
            key=self.key,
            clock=time.monotonic,
            wall=time.time,
            rand=_rand,
        )

    def _headers(self, method: str, options: dict[str, Any]) -> tuple[flow.Pairs, bool]:
        """Return the headers, and whether the request may be repeated."""
        headers = self.sent_headers
        if method == "POST":
            key = options.get("idempotency_key")
            pair = ("Idempotency-Key", os.urandom(16).hex()) if key is None else _own_key(key)
            headers = [*headers, pair]
        if extra := options.get("extra_headers"):
            headers = _overlaid(headers, extra)
        repeatable = method == "GET" or any(
            name.lower() == "idempotency-key" for name, _ in headers
        )
        return headers, repeatable


def _check_mappings(options: Mapping[str, object]) -> None:
    for name in ("extra_headers", "extra_query", "extra_body"):
        value = options.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise APIRequestError(f"{name} must be a mapping, not {type(value).__name__}.")


def _own_key(key: object) -> tuple[str, str]:
    if not isinstance(key, str) or not key.strip():
        raise APIRequestError("idempotency_key must be a string that is not blank.")
    return check_header("Idempotency-Key", key)


def _overlaid(pairs: flow.Pairs, more: GivenHeaders) -> flow.Pairs:
    checked = {
        check_header(name, "")[0].lower(): value if value is None else check_header(name, value)
        for name, value in more.items()
    }
    kept = [pair for pair in pairs if pair[0].lower() not in checked]
    return kept + [pair for pair in checked.values() if pair is not None]


def _body(params: dict[str, Any], extra: Mapping[str, object] | None) -> bytes:
    from animica_hooks.sdk.codec import encode

    body = {n: value for n, value in params.items() if value is not None and value is not UNSET}
    if extra:
        body.update(extra)
    return encode(body)
