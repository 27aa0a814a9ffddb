"""Which handlers an event goes to.

Patterns: ``"payment.succeeded"`` is that type, ``"payment.*"`` is every type that begins with
``payment.``, ``"*"`` is every type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from animica_hooks.core.binding import Binding, bind, stable_name
from animica_hooks.core.event import Event
from animica_hooks.core.order import ON_DEAD, OnDead
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
        key: of an event, names the line in which it is handled in order.
        concurrency, rate: of all processes together; attempts at once, and begun a second.
        key_rate: jobs of one key a second.
        aliases: names that it had before, the newest first.
    """

    name: str
    function: Callable[..., Any] = field(repr=False)
    binding: Binding = field(repr=False)
    patterns: tuple[str, ...]
    endpoint: str = ROOT_ENDPOINT
    retry: RetryPolicy | None = None
    timeout: float | None = None
    key: Callable[[Any], Any] | None = field(default=None, repr=False)
    on_dead: OnDead = "park"
    concurrency: int | None = None
    rate: float | None = None
    key_rate: float | None = None
    priority: int = 0
    aliases: tuple[str, ...] = ()

    @property
    def first_name(self) -> str:
        """What idempotency keys are made of: a job may have been tried under each of its names."""
        return self.aliases[-1] if self.aliases else self.name

    @property
    def is_plain(self) -> bool:
        """Nothing but the slots of a process limits it: its jobs may be inserted leased."""
        return (
            self.key is None
            and self.concurrency is None
            and self.rate is None
            and self.priority == 0
        )

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
        key: Callable[[Event[Any]], Any] | None = None,
        on_dead: OnDead = "park",
        concurrency: int | None = None,
        rate: float | None = None,
        key_rate: float | None = None,
        priority: int = 0,
        aliases: Sequence[str] = (),
    ) -> Callable[[F], F]:
        """Register the decorated function for events whose type matches one of the patterns.

        Args:
            pattern, patterns: ``"a.b"``, ``"a.*"`` or ``"*"``.
            name: the handler's stable name; ``module.qualname`` unless given.
            retry: when a failed attempt is tried again; the app's policy unless given.
            timeout: seconds an attempt may take; the app's unless given.
            endpoint: name of the endpoint to listen at, ``"*"`` for all.
            key: jobs whose events have the same key (a string or an int) run one at a time, in
                order, through failures and across workers. Called where the event is received.
            on_dead: what a dead job does to those of its key behind it: they are ``"park"``-ed
                until a person lets them go on, it is ``"skip"``-ped, or it ``"block"``-s them
                until a person has dealt with it.
            concurrency: attempts at once, in all processes together.
            rate: attempts begun a second, in all processes together.
            key_rate: jobs of one key a second.
            priority: handlers with a higher one are served first; the others still get some.
            aliases: names that the handler had before, whose jobs it takes over; the newest first.

        Raises:
            ConfigurationError: a pattern, the name or the function's signature is wrong.
        """
        checked = tuple(dict.fromkeys(check_pattern(p) for p in (pattern, *patterns)))
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise ConfigurationError(f"retry must be a RetryPolicy, not {type(retry).__name__}.")
        check_seconds("timeout", timeout)
        if not isinstance(endpoint, str) or not endpoint:
            raise ConfigurationError(f"endpoint is the name of one, or '*', not {endpoint!r}.")
        _check_order(key, on_dead, key_rate)
        _check_limits(concurrency, rate, priority)

        def register(function: F) -> F:
            if not callable(function):
                raise ConfigurationError("on(...) decorates a function: write @on('a.b').")
            handler_name = name if name is not None else stable_name(function)
            for given in (handler_name, *aliases):
                _check_name(given)
            self.add(
                Handler(
                    name=handler_name,
                    function=function,
                    binding=bind(function, handler_name),
                    patterns=checked,
                    endpoint=endpoint,
                    retry=retry,
                    timeout=timeout,
                    key=key,
                    on_dead=on_dead,
                    concurrency=concurrency,
                    rate=rate,
                    key_rate=key_rate,
                    priority=priority,
                    aliases=tuple(aliases),
                )
            )
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


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise ConfigurationError(
            f"a handler's name has 1 to {MAX_NAME_CHARS} printable characters, not {name!r}."
        )


def _check_order(key: object, on_dead: object, key_rate: object) -> None:
    if key is not None and not callable(key):
        raise ConfigurationError(
            f"key must be a function of the event, as in key=lambda e: e.data['customer'], not "
            f"{key!r}."
        )
    if on_dead not in ON_DEAD:
        raise ConfigurationError(f"on_dead is one of {', '.join(ON_DEAD)}, not {on_dead!r}.")
    if key is None and (on_dead != "park" or key_rate is not None):
        raise ConfigurationError("on_dead and key_rate are about jobs of one key: pass key= too.")
    _check_rate("key_rate", key_rate)


def _check_limits(concurrency: object, rate: object, priority: object) -> None:
    if concurrency is not None and (
        isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
    ):
        raise ConfigurationError(
            f"concurrency must be a whole number above 0, not {concurrency!r}."
        )
    _check_rate("rate", rate)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise ConfigurationError(f"priority must be a whole number, not {priority!r}.")


def _check_rate(name: str, rate: object) -> None:
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf
    ):
        raise ConfigurationError(f"{name} must be jobs a second, above 0, not {rate!r}.")


def check_seconds(name: str, value: object) -> None:
    """Check an optional duration.

    Raises:
        ConfigurationError: not a number of seconds above 0.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name} must be seconds above 0, not {value!r}.")


class Recorded(NamedTuple):
    """A handler as the database knows it."""

    id: int
    name: str
    endpoint: str
    patterns: tuple[str, ...]
    paused: bool


class Route(NamedTuple):
    """The handlers of an event.

    Attributes:
        plain: ids of those whose jobs may be inserted leased.
        others: ids of the others, and the handlers themselves where this process has them.
    """

    plain: tuple[int, ...] = ()
    others: tuple[tuple[int, Handler | None], ...] = ()


class RoutingTable:
    """The handlers that events go to, by endpoint and type.

    Args:
        handlers: of this process. Of those that the database does not know no job is made.
    """

    def __init__(self, handlers: Sequence[Handler], recorded: Sequence[Recorded]) -> None:
        self._handlers = {handler.name: handler for handler in handlers}
        self._former = {alias for handler in handlers for alias in handler.aliases}
        self._cached: dict[tuple[str, str], Route] = {}
        self.update(recorded)

    def update(self, recorded: Sequence[Recorded]) -> None:
        """Take what the database knows now: of a newer process's handlers, too, jobs are made."""
        known = {record.name: record for record in recorded}
        own = [known[name] for name in self._handlers if name in known]
        other = [r for r in recorded if r.name not in self._handlers and r.name not in self._former]
        self._records = (*own, *other)
        self._cached.clear()

    def match(self, endpoint: str, type: str) -> Route:
        """Return an event's handlers, in the order of registration."""
        key = (endpoint, type)
        found = self._cached.get(key)
        if found is None:
            if len(self._cached) >= _MAX_CACHED_TYPES:
                self._cached.clear()
            found = self._cached[key] = self._route(endpoint, type)
        return found

    def _route(self, endpoint: str, type: str) -> Route:
        plain: list[int] = []
        others: list[tuple[int, Handler | None]] = []
        for record in self._records:
            handler = self._handlers.get(record.name)
            listens = record if handler is None else handler
            if not takes(listens.patterns, listens.endpoint, endpoint, type):
                continue
            if handler is not None and handler.is_plain and not record.paused:
                plain.append(record.id)
            else:
                others.append((record.id, handler))
        return Route(tuple(plain), tuple(others))


default_router = Router()
on = default_router.on
