"""What all clients are: settings and connections.

A provider's client is a subclass with a few class attributes (``BaseClient``) and its resources.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from animica_hooks.errors import (
    APIError,
    APIRequestError,
    APIResponseError,
    ConfigurationError,
)
from animica_hooks.sdk.address import Address
from animica_hooks.sdk.answer import Answer
from animica_hooks.sdk.options import Settings
from animica_hooks.sdk.timeout import UNSET
from animica_hooks.sdk.transports.choice import AsyncConnections, Connections, Plan

if TYPE_CHECKING:
    import ssl

    from animica_hooks.sdk.endpoint import Endpoint
    from animica_hooks.sdk.flow import Policy, Request
    from animica_hooks.sdk.options import GivenHeaders, Query
    from animica_hooks.sdk.ratelimit import RateLimit
    from animica_hooks.sdk.timeout import AnyTimeout, Timeout, Unset

LOGGER = "animica_hooks.sdk"

_COMMON_HEADERS = (
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
    ("User-Agent", "animica-hooks"),
)


class _Secret(str):
    """A header's value that no repr shows: of a list of headers in a traceback, for one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class _Seen:
    """What a client and its copies saw last."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}


class BaseClient:
    """What sync and async clients have in common; a provider sets the class attributes.

    Args:
        api_key: from the environment where it is not given.
        base_url: where the API is.
        timeout: seconds of each step, or a ``Timeout``; ten minutes.
        max_retries: how many more requests may follow a failed one.
        deadline: seconds for a whole call, with its retries and its stream; no limit.
        first_token_timeout: seconds for a stream to begin; no limit but ``timeout``.
        default_headers: sent with each request; None leaves one of ours out.
        default_query: sent with each request.
        proxy: a proxy's URL, or URLs by scheme; from the environment where it is not given.
        proxies: the same, by its older name.
        ssl_context: instead of one with the system's authorities.
        http_client: a client of httpx or httpx2 to send with, which is not closed.
        transport: a transport of httpx or httpx2; or one of our own, see ``transports``.

    Raises:
        ConfigurationError: something is missing, or makes no sense; the message says what.
    """

    default_base_url: ClassVar[str]
    key_variable: ClassVar[str]
    key_required: ClassVar[bool] = True
    key_header: ClassVar[str] = "Authorization"
    key_prefix: ClassVar[str] = "Bearer "
    own_headers: ClassVar[tuple[tuple[str, str], ...]] = ()

    _connections: Connections | AsyncConnections
    _connections_class: ClassVar[type[Connections | AsyncConnections]]

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: AnyTimeout | Unset = UNSET,
        *,
        max_retries: int | Unset = UNSET,
        deadline: float | None = None,
        first_token_timeout: float | None = None,
        default_headers: GivenHeaders | None = None,
        default_query: Query | None = None,
        proxy: str | Mapping[str, str | None] | None = None,
        proxies: str | Mapping[str, str | None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        http_client: object = None,
        transport: object = None,
    ) -> None:
        key = self._key(api_key)
        address = Address(self.default_base_url if base_url is None else base_url)
        authorised = []
        if key:
            name, value = self._authorisation(key)
            authorised = [(name, _Secret(value))]
        self._settings = Settings(
            address=address,
            key=key,
            own_headers=[*authorised, *_COMMON_HEADERS, *self.own_headers],
        ).changed(
            timeout=timeout,
            max_retries=max_retries,
            deadline=deadline,
            first_token_timeout=first_token_timeout,
            default_headers=default_headers,
            default_query=default_query,
        )
        self._connections = self._connections_class(
            Plan(
                address,
                proxy=proxy if proxy is not None else proxies,
                ssl_context=ssl_context,
                http_client=http_client,
                transport=transport,
            )
        )
        self._seen = _Seen()
        _log_if_wanted()

    def _authorisation(self, key: str) -> tuple[str, str]:
        """Return the header that says who asks."""
        return self.key_header, self.key_prefix + key

    @classmethod
    def _key(cls, given: str | None) -> str | None:
        key = os.environ.get(cls.key_variable) if given is None else given
        if key is None:
            if cls.key_required:
                raise ConfigurationError(
                    f"no API key: give api_key, or set {cls.key_variable} in the environment."
                )
            return None
        if not isinstance(key, str):
            raise ConfigurationError(f"api_key must be a string, not {type(key).__name__}.")
        where = f" (from {cls.key_variable})" if given is None else ""
        if not key.strip():
            raise ConfigurationError(f"api_key{where} is blank.")
        if not key.isprintable() or not key.isascii() or key != key.strip():
            raise ConfigurationError(
                f"api_key{where} has white space around it, or characters that no key has."
            )
        return key

    def _request(
        self, endpoint: Endpoint[Any, Any], params: dict[str, Any], *, stream: bool
    ) -> tuple[Request, Policy]:
        """Return the request of one call; a provider that refuses some overrides this.

        Raises:
            APIRequestError: it can not be sent.
        """
        return self._settings.request(endpoint.method, endpoint.path, params, stream=stream)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.address.origin}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(f"an {type(self).__name__} holds a key and connections: make one there")

    @property
    def api_key(self) -> str:
        """Not shown: what has a client need not have its key.

        Raises:
            AttributeError: always; without this, a key that is set here would be silently ignored.
        """
        raise AttributeError("a client does not show its key; for another, make another client.")

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self._settings.address.origin + self._settings.address.path

    @property
    def timeout(self) -> Timeout:
        """How long each step may take."""
        return self._settings.timeout

    @property
    def max_retries(self) -> int:
        """How many more requests may follow a failed one."""
        return self._settings.max_retries

    @property
    def rate_limit(self) -> RateLimit:
        """What the headers of the last answer said of the rate limits."""
        from animica_hooks.sdk.ratelimit import read

        return read(self._seen.headers)

    def is_closed(self) -> bool:
        """Tell whether ``close()`` was called, on this client or a copy of it."""
        return self._connections.closed

    def with_options(
        self,
        *,
        timeout: AnyTimeout | Unset = UNSET,
        max_retries: int | Unset = UNSET,
        deadline: float | Unset | None = UNSET,
        first_token_timeout: float | Unset | None = UNSET,
        default_headers: GivenHeaders | None = None,
        default_query: Query | None = None,
    ) -> Self:
        """Return this client with other options; it shares the connections.

        Raises:
            ConfigurationError: an option makes no sense.
        """
        changed = object.__new__(type(self))
        changed._connections = self._connections
        changed._seen = self._seen
        changed._settings = self._settings.changed(
            timeout=timeout,
            max_retries=max_retries,
            deadline=deadline,
            first_token_timeout=first_token_timeout,
            default_headers=default_headers,
            default_query=default_query,
        )
        return changed

    # The name that the official clients have for it, too.
    copy = with_options


def _log_if_wanted() -> None:
    """Show what is sent on standard error, where ``ANIMICA_LOG=debug`` asks for it."""
    if os.environ.get("ANIMICA_LOG", "").strip().lower() != "debug":
        return
    import logging

    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())


def log_outcome(request: Request, outcome: Answer | APIError, began: float) -> None:
    """Log one request: without its query, headers and body."""
    # Where nobody has imported logging nobody listens, and importing it would only take time.
    logging = sys.modules.get("logging")
    if logging is None:
        return
    logger = logging.getLogger(LOGGER)
    if not logger.isEnabledFor(logging.DEBUG):
        return
    logger.debug(
        "%s %s: %s in %.0f ms, request id %s",
        request.method,
        request.target.partition("?")[0],
        outcome.status if isinstance(outcome, Answer) else type(outcome).__name__,
        (time.monotonic() - began) * 1000,
        outcome.request_id,
    )


def complete(error: APIError, answer: Answer) -> None:
    """Give the error of a body that broke off what is known of its answer."""
    error.request_id = answer.request_id
    error.headers = answer.headers.without_cookies()
    if isinstance(error, APIResponseError):
        error.status = answer.status


def refuse_stream(params: dict[str, Any]) -> None:
    """Tell who asks for the raw response of a stream.

    Raises:
        APIRequestError: they do.
    """
    if params.get("stream"):
        raise APIRequestError(
            "a stream has status_code, headers and request_id itself: leave out with_raw_response."
        )


def is_stream(answer: Answer) -> bool:
    """Tell whether an answer is what ``stream=True`` asks for."""
    kind = answer.headers.get("content-type")
    return kind is None or "event-stream" in kind.lower()
