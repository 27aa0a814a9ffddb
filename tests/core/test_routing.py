"""Which handlers an event goes to, and what can not be registered."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import animica_hooks
from animica_hooks import Event, RetryPolicy, Router
from animica_hooks.core import routing
from animica_hooks.core.routing import (
    ANY,
    MAX_NAME_CHARS,
    ROOT_ENDPOINT,
    Handler,
    Recorded,
    Route,
    RoutingTable,
    check_pattern,
    check_seconds,
    default_router,
    matches,
    takes,
)
from animica_hooks.errors import ConfigurationError


def first(event: Event) -> None: ...


async def second(event: Event) -> None: ...


def named(name: str) -> Callable[[Event], None]:
    """A handler's function, new each time."""

    def function(event: Event) -> None: ...

    function.__qualname__ = name
    return function


TEXTS = st.text(alphabet="ab.*", max_size=7)


def is_pattern(text: str) -> bool:
    """Whether it is a type, "*", or a type followed by ".*"."""
    whole = text.removesuffix(".*")
    return text == "*" or (whole != "" and "*" not in whole)


def is_of(type: str, pattern: str) -> bool:
    """Whether a type is one of a pattern's, letter by letter."""
    if pattern == "*":
        return True
    if not pattern.endswith(".*"):
        return list(pattern) == list(type)
    beginning = pattern[:-1]
    return len(type) >= len(beginning) and all(
        letter == wanted for letter, wanted in zip(type, beginning, strict=False)
    )


@given(TEXTS)
def test_a_star_stands_alone_or_last(text: str) -> None:
    """A text is a pattern exactly if its only star is itself or its last part."""
    if is_pattern(text):
        assert text == check_pattern(text)
    else:
        with pytest.raises(ConfigurationError, match="pattern"):
            check_pattern(text)


@given(TEXTS.filter(is_pattern), TEXTS.filter(bool))
def test_matching_is_letter_by_letter(pattern: str, type: str) -> None:
    """A pattern takes the types that a naive comparison takes, dots and stars too."""
    assert is_of(type, pattern) is matches(pattern, type)


@pytest.mark.parametrize(
    ("pattern", "type", "expected"),
    [
        ("payment.succeeded", "payment.succeeded", True),
        ("payment.succeeded", "payment.succeeded.v2", False),
        ("payment.succeeded", "Payment.succeeded", False),
        ("payment.*", "payment.succeeded", True),
        ("payment.*", "payment.succeeded.v2", True),
        ("payment.*", "payment", False),
        ("payment.*", "payments.succeeded", False),
        ("*", "anything\n\x1b[2J", True),
        ("*", "__proto__", True),
    ],
)
def test_what_patterns_take(pattern: str, type: str, expected: bool) -> None:
    """An exact type is that type only; "a.*" is what begins with "a."; "*" is every type."""
    assert expected is matches(pattern, type)


@pytest.mark.parametrize(
    "pattern",
    [
        *("", " ", " a.b", "a.b\n", ".*", "a*", "*a", "**", "a.*.b", "*.a", "a.**", "a.*b"),
        *(None, 5, b"a"),
    ],
)
def test_what_is_no_pattern_is_refused(pattern: Any) -> None:
    """A pattern that could never match, or not as meant, is a mistake at the start."""
    for patterns in ((pattern,), ("a.b", pattern)):
        with pytest.raises(ConfigurationError, match="pattern"):
            Router().on(*patterns)


@given(st.lists(TEXTS.filter(is_pattern), max_size=4), TEXTS.filter(bool))
def test_one_pattern_of_several_is_enough(patterns: list[str], type: str) -> None:
    """A handler takes a type that any of its patterns takes, at its endpoint or at all."""
    expected = any(is_of(type, pattern) for pattern in patterns)

    assert expected is takes(patterns, "here", "here", type)
    assert expected is takes(patterns, ANY, "here", type)
    assert takes(patterns, "there", "here", type) is False


# Registering


def test_a_registered_handler_is_what_was_said() -> None:
    """The decorator keeps the function, and its handler has all that was given."""
    router = Router()
    policy = RetryPolicy(max_attempts=3)

    returned = router.on(
        "b.c", "a.*", "b.c", name="mine", retry=policy, timeout=2.5, endpoint="github"
    )(second)

    assert returned is second
    [handler] = router.handlers
    assert ("mine", second, ("b.c", "a.*")) == (handler.name, handler.function, handler.patterns)
    assert (policy, 2.5, "github") == (handler.retry, handler.timeout, handler.endpoint)
    assert handler.binding.is_async is True


def test_what_is_not_said_is_left_to_the_app() -> None:
    """Without options the name is the function's, the endpoint the root, the rest the app's."""
    router = Router()
    router.on("a.b")(first)

    [handler] = router.handlers
    assert ("test_routing.first", ROOT_ENDPOINT) == (handler.name, handler.endpoint)
    assert (None, None) == (handler.retry, handler.timeout)


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "x" * (MAX_NAME_CHARS + 1)},
        {"name": "two\nlines"},
        {"name": "\x1b[31mred"},
        {"name": 5},
        {"retry": 3},
        {"retry": {"max_attempts": 3}},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"timeout": True},
        {"timeout": "5"},
        {"endpoint": ""},
        {"endpoint": None},
        {"endpoint": 5},
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    """Each option is checked where it is written, and names itself."""
    [option] = options
    with pytest.raises(ConfigurationError, match=option):
        Router().on("a.b", **options)(first)


@pytest.mark.parametrize("name", ["x", "größer als nötig", "x" * 200])
def test_names_that_are_taken(name: str) -> None:
    """A name is 1 to 200 printable characters, kept as it is."""
    assert MAX_NAME_CHARS == 200
    router = Router()
    router.on("a.b", name=name)(first)

    assert [name] == [handler.name for handler in router.handlers]


@pytest.mark.parametrize("value", [0.001, 1, 10**6, None])
def test_seconds_that_are_taken(value: object) -> None:
    """Any finite number above 0 is a duration; None leaves it to somebody else."""
    check_seconds("timeout", value)


def test_a_decorator_without_its_pattern_is_refused() -> None:
    """@on without parentheses, or on what can not be called, is told how to be written."""
    with pytest.raises(ConfigurationError, match="pattern"):
        Router().on(first)
    with pytest.raises(ConfigurationError, match="decorates a function"):
        Router().on("a.b")("a.c")


def test_a_signature_is_checked_where_it_is_registered() -> None:
    """A handler that takes no event is refused, by the name that it was given."""
    with pytest.raises(ConfigurationError, match="handler mine takes no event"):
        Router().on("a.b", name="mine")(lambda: None)


def test_two_handlers_of_one_name_are_refused() -> None:
    """The second handler of a name is refused, and the first one stays."""
    router = Router()
    router.on("a.b")(first)

    for again in (lambda: router.on("a.c")(first), lambda: router.on("a.b")(named("first"))):
        with pytest.raises(ConfigurationError, match=r"two handlers are named test_routing\.first"):
            again()

    assert [first] == [handler.function for handler in router.handlers]


def test_a_router_can_be_included_twice() -> None:
    """Including a router again, or itself, adds nothing; a clash of names is refused."""
    one, two, other = Router(), Router(), Router()
    one.on("a.b", name="one")(first)
    two.on("a.b", name="two")(first)
    other.on("a.b", name="two")(second)

    for router in (two, two, one):
        one.include(router)

    assert [handler.name for handler in one.handlers] == ["one", "two"]
    with pytest.raises(ConfigurationError, match="two handlers are named two"):
        one.include(other)


def test_including_takes_the_handlers_as_they_are_now() -> None:
    """A handler that is registered later is not in the router that included before."""
    one, two = Router(), Router()
    one.include(two)
    two.on("a.b")(first)

    assert one.handlers == []


def test_the_shared_router_is_one() -> None:
    """`from animica_hooks import on` registers in the default router."""
    assert animica_hooks.on.__self__ is default_router
    assert animica_hooks.on.__func__ is Router.on


# The table


def table(*handlers: tuple[str, ...], endpoint: str = ROOT_ENDPOINT) -> RoutingTable:
    """A routing table of handlers with ids from 0, by their patterns."""
    router = Router()
    for number, patterns in enumerate(handlers):
        router.on(*patterns, name=str(number), endpoint=endpoint)(first)
    recorded = [
        Recorded(number, str(number), endpoint, patterns, paused=False)
        for number, patterns in enumerate(handlers)
    ]
    return RoutingTable(router.handlers, recorded)


@given(
    st.lists(st.lists(TEXTS.filter(is_pattern), min_size=1, max_size=3).map(tuple), max_size=5),
    st.lists(TEXTS.filter(bool), max_size=10),
)
def test_the_table_answers_as_a_naive_search(
    handlers: list[tuple[str, ...]], types: list[str]
) -> None:
    """Each type goes to the handlers that take it, in the order of registration, every time."""
    routes = table(*handlers)

    for type in types * 2:
        expected = tuple(
            number
            for number, patterns in enumerate(handlers)
            if any(is_of(type, pattern) for pattern in patterns)
        )
        assert Route(expected) == routes.match(ROOT_ENDPOINT, type)


def test_endpoints_are_apart() -> None:
    """A handler hears its own endpoint only, or with "*" all of them."""
    assert table(("*",)).match(ROOT_ENDPOINT, "a").plain == (0,)
    assert table(("*",)).match("github", "a").plain == ()
    assert table(("*",), endpoint="github").match("github", "a").plain == (0,)
    assert table(("*",), endpoint="github").match(ROOT_ENDPOINT, "a").plain == ()
    for endpoint in (ROOT_ENDPOINT, "github"):
        assert table(("*",), endpoint=ANY).match(endpoint, "a").plain == (0,)


def test_strange_types_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many types arrive, few are remembered, and all are answered rightly."""
    monkeypatch.setattr(routing, "_MAX_CACHED_TYPES", 10)
    routes = table(("a.*",), ("*",))

    for number in range(1000):
        assert routes.match(ROOT_ENDPOINT, f"a.{number}").plain == (0, 1)
        assert routes.match(ROOT_ENDPOINT, f"b.{number}").plain == (1,)
        assert len(routes._cached) <= 10


def test_a_handler_shows_no_function() -> None:
    """A handler's repr has what was said, not the objects behind it."""
    router = Router()
    router.on("a.b", name="mine")(first)

    [handler] = router.handlers
    assert isinstance(handler, Handler)
    assert "mine" in repr(handler)
    assert "function" not in repr(handler)
