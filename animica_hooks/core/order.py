"""Order within a key: what becomes of a job that is behind others, and of those behind it.

The jobs of one handler that have one key are a line. Only its first is due; the others have no due
date. These are pure decisions, which a store carries out under a lock of the line.

Rule 1: a new job looks at the newest job of its line (``entry``).
Rule 2: a job that ends for good calls the next one, or does not (``aftermath``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

from animica_hooks.core.job import State

MAX_KEY_CHARS = 200

# What a dead job does to those behind it.
OnDead: TypeAlias = Literal["park", "skip", "block"]
ON_DEAD: tuple[OnDead, ...] = ("park", "skip", "block")


class Line(NamedTuple):
    """The line that a job is in.

    Attributes:
        interval: microseconds from the end of one job to the earliest start of the next.
    """

    handler_id: int
    key: str
    on_dead: OnDead
    interval: int = 0


class NoKey(Exception):
    """A handler's ``key`` made none of an event; the message says why, free of payload."""


def key_of(key: Callable[[Any], Any], event: object) -> str | None:
    """Return the key of an event's line; None where ``key`` says that it needs no order.

    Raises:
        NoKey: it raised, or what it made is no key.
    """
    try:
        made = key(event)
    except Exception as error:  # noqa: BLE001 - whatever the user's function raises
        raise NoKey(f"key= raised {type(error).__name__}") from None
    if made is None:
        return None
    if isinstance(made, bool) or not isinstance(made, str | int):
        raise NoKey(f"key= made a {type(made).__name__}, and not a string or an int")
    text = str(made)
    if not 0 < len(text) <= MAX_KEY_CHARS or "\0" in text or not text.isprintable():
        raise NoKey(f"key= made a string that is not 1 to {MAX_KEY_CHARS} printable characters")
    return text


class Entry(NamedTuple):
    """How a new job joins its line.

    Attributes:
        first: it is due; otherwise it waits for those before it.
    """

    state: State
    first: bool


def entry(newest: State | None, on_dead: OnDead) -> Entry:
    """Decide how a job joins a line whose newest job is in a state; None where there is none."""
    match newest:
        case State.AVAILABLE | State.LEASED:
            return Entry(State.AVAILABLE, first=False)
        case State.PARKED:
            return Entry(State.PARKED, first=False)
        case State.DEAD if on_dead == "park":
            return Entry(State.PARKED, first=False)
        case State.DEAD if on_dead == "block":
            return Entry(State.AVAILABLE, first=False)
        case _:
            return Entry(State.AVAILABLE, first=True)


class Aftermath(NamedTuple):
    """What the end of an attempt means for those behind the job.

    Attributes:
        parks: they are parked.
        next_due: when the next of the line is due, in microseconds since the epoch; None where it
            is not called.
    """

    parks: bool
    next_due: int | None


def parks(state: State, on_dead: OnDead) -> bool:
    """Tell whether those behind a job that has come to ``state`` are parked."""
    return state is State.DEAD and on_dead == "park"


def aftermath(state: State, line: Line, now: int) -> Aftermath:
    """Decide what happens to those behind a job that has come to ``state``."""
    if parks(state, line.on_dead):
        return Aftermath(True, now)  # there may be some before it
    if not state.final or (state is State.DEAD and line.on_dead == "block"):
        return Aftermath(False, None)
    return Aftermath(False, now + line.interval)
