"""Which handlers an event goes to.

Patterns: ``"payment.succeeded"`` is that type, ``"payment.*"`` is every type that begins with
``payment.``, ``"*"`` is every type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from animica_hooks.core.binding import Binding, bind, stable_name
from animica_hooks.core.retry import RetryPolicy
from animica_hooks.errors import ConfigurationError

ROOT_ENDPOINT = "animica"
ANY = "*"
MAX_NAME_CHARS = 200
_MAX_CACHED_TYPES = 4096

F = TypeVar("F", bound=Callable[..., Any])


def check_pattern(pattern: object) -> str:
    """Return ``pattern`` if it is one.

    Raises:
        ConfigurationError: empty, not a string, or with a ``*`` elsewhere than as its last part.
    """
    if not isinstance(pattern, str) or not pattern or pattern != pattern.strip():
        raise ConfigurationError(f"a pattern is a type, 'a.*' or '*', not {pattern!r}.")
    head = pattern.removesuffix("*")
    if "*" in head or (head != pattern and head and not head.endswith(".")) or pattern == ".*":
        raise ConfigurationError(
            f"pattern {pattern!r}: '*' can only stand alone or as the last part, as in 'a.*'."
        )
    return pattern


def matches(pattern: str, type: str) -> bool:
    """Tell whether an event of ``type`` is one of ``pattern``'s."""
    if pattern.endswith("*"):
        return type.startswith(pattern[:-1])
    return pattern == type


@dataclass(frozen=True, slots=True)
class Handler:
    """A function of the user's, registered for event types.

    Attributes:
        name: stable, for its jobs outlive the process.
        endpoint: name of the endpoint it listens at, or ``*``.
        retry, timeout: None where the ``Hooks`` it belongs to decides; seconds.
    """

    name: str
    function: Callable[..., Any] = field(repr=False)
    binding: Binding = field(repr=False)
    patterns: tuple[str, ...]
    endpoint: str = ROOT_ENDPOINT
    retry: RetryPolicy | None = None
    timeout: float | None = None

    def takes(self, endpoint: str, type: str) -> bool:
        return takes(self.patterns, self.endpoint, endpoint, type)


def takes(patterns: Iterable[str], listens_at: str, endpoint: str, type: str) -> bool:
    """Tell whether patterns registered at ``listens_at`` take a type that came to ``endpoint``."""
    return listens_at in (endpoint, ANY) and any(matches(pattern, type) for pattern in patterns)


class Router:
    """A list of handlers, for modules that must not import the app.

    ``hooks.include(router)`` adds its handlers to an app.
    """

    def __init__(self) -> None:
        self.handlers: list[Handler] = []

    def on(
        self,
        pattern: str,
        *patterns: str,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        endpoint: str = ROOT_ENDPOINT,
    ) -> Callable[[F], F]:
        """Register the decorated function for events whose type matches one of the patterns.

        Args:
            pattern, patterns: ``"a.b"``, ``"a.*"`` or ``"*"``.
            name: the handler's stable name; ``module.qualname`` unless given.
            retry: when a failed attempt is tried again; the app's policy unless given.
            timeout: seconds an attempt may take; the app's unless given.
            endpoint: name of the endpoint to listen at, ``"*"`` for all.

        Raises:
            ConfigurationError: a pattern, the name or the function's signature is wrong.
        """
        checked = tuple(dict.fromkeys(check_pattern(p) for p in (pattern, *patterns)))
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise ConfigurationError(f"retry must be a RetryPolicy, not {type(retry).__name__}.")
        check_seconds("timeout", timeout)
        if not isinstance(endpoint, str) or not endpoint:
            raise ConfigurationError(f"endpoint is the name of one, or '*', not {endpoint!r}.")

        def register(function: F) -> F:
            if not callable(function):
                raise ConfigurationError("on(...) decorates a function: write @on('a.b').")
            handler_name = name if name is not None else stable_name(function)
            if (
                not isinstance(handler_name, str)
                or not 0 < len(handler_name) <= MAX_NAME_CHARS
                or not handler_name.isprintable()
            ):
                raise ConfigurationError(
                    f"a handler's name has 1 to {MAX_NAME_CHARS} printable characters, not "
                    f"{handler_name!r}."
                )
            binding = bind(function, handler_name)
            self.add(Handler(handler_name, function, binding, checked, endpoint, retry, timeout))
            return function

        return register

    def add(self, handler: Handler) -> None:
        """Add a handler.

        Raises:
            ConfigurationError: another one has its name.
        """
        for other in self.handlers:
            if other.name == handler.name and other is not handler:
                raise ConfigurationError(
                    f"two handlers are named {handler.name}: pass name= to tell them apart, or "
                    "list all patterns in one on(...)."
                )
        if handler not in self.handlers:
            self.handlers.append(handler)

    def include(self, router: Router) -> None:
        """Add another router's handlers to this one, as they are now."""
        for handler in router.handlers:
            self.add(handler)


def check_seconds(name: str, value: object) -> None:
    """Check an optional duration.

    Raises:
        ConfigurationError: not a number of seconds above 0.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name} must be seconds above 0, not {value!r}.")


class RoutingTable:
    """The handlers of a started app, by endpoint and type.

    Args:
        ids: under which the store knows the handlers, by name.
    """

    def __init__(self, handlers: Sequence[Handler], ids: Mapping[str, int]) -> None:
        self._handlers = tuple(handlers)
        self._ids = ids
        self._cached: dict[tuple[str, str], tuple[int, ...]] = {}

    def match(self, endpoint: str, type: str) -> tuple[int, ...]:
        """Return the ids of an event's handlers, in the order of registration."""
        key = (endpoint, type)
        found = self._cached.get(key)
        if found is None:
            if len(self._cached) >= _MAX_CACHED_TYPES:
                self._cached.clear()
            found = tuple(self._ids[h.name] for h in self._handlers if h.takes(endpoint, type))
            self._cached[key] = found
        return found


default_router = Router()
on = default_router.on
