"""How an attempt ended, and what that makes of its job: a pure decision.

An attempt ends in one outcome. ``decide`` turns it into a ``Transition``, which a store carries
out. Times are integer microseconds since the epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias, assert_never

from animica_hooks.core.job import TRANSITIONS, State, Verb
from animica_hooks.core.retry import RetryPolicy
from animica_hooks.core.scrub import scrub

SECOND = 1_000_000
MAX_REASON_CHARS = 500
LONGEST_DELAY_S = 1e9  # a due time must fit a 64-bit column


class RetryLater(Exception):
    """Raise it in a handler to be run again later, without that counting as a failed attempt.

    Args:
        when: seconds from now, or an aware datetime. The policy's ``max_age`` still ends the job.
    """

    def __init__(self, when: float | datetime) -> None:
        super().__init__(when)
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise ValueError("RetryLater needs an aware datetime: give it a time zone")
        elif (
            isinstance(when, bool)
            or not isinstance(when, int | float)
            or not when <= math.inf  # NaN; isnan can not take every int
        ):
            raise ValueError(f"RetryLater needs seconds or an aware datetime, not {when!r}")
        self.when = when

    def due_at(self, now: int) -> int:
        """Return when that is, in microseconds since the epoch, as ``now`` is."""
        if isinstance(self.when, datetime):
            return to_micros(self.when)
        return now + int(min(max(self.when, 0.0), LONGEST_DELAY_S) * SECOND)


class Discard(Exception):
    """Raise it in a handler to end the job as cancelled, with a reason."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = scrub(str(reason), MAX_REASON_CHARS)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed; it counts.

    Attributes:
        reason: a few words that say how, free of payload.
        retry: False where another attempt can not end otherwise.
        orphaned: its process died of it; it runs alone next time, too.
    """

    reason: str
    retry: bool = True
    orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt was broken off through no fault of the handler; it does not count.

    Attributes:
        orphaned: its process died; it runs alone next time.
    """

    orphaned: bool = False


Outcome: TypeAlias = Succeeded | Failed | Released | RetryLater | Discard


@dataclass(frozen=True, slots=True)
class Transition:
    """What becomes of a leased job.

    Attributes:
        due_at: when it may be claimed again; None unless available.
        attempts, failed: by how much the job's counts grow.
        reason: why it is dead, cancelled or put off; None otherwise.
    """

    verb: Verb
    due_at: int | None
    attempts: int
    failed: int
    reason: str | None = None
    orphaned: bool = False

    @property
    def state(self) -> State:
        return TRANSITIONS[State.LEASED][self.verb]


COMPLETED = Transition(Verb.COMPLETE, None, attempts=1, failed=0)


def decide(
    outcome: Outcome, policy: RetryPolicy, *, failed: int, created_at: int, now: int, rand: float
) -> Transition:
    """Decide what becomes of a job whose attempt ended in ``outcome``.

    Args:
        failed: failed attempts before this one.
        created_at: when the job was created.
        rand: drawn evenly from [0, 1).
    """
    match outcome:
        case Succeeded():
            return COMPLETED
        case Released(orphaned):
            return Transition(Verb.RELEASE, now, attempts=0, failed=0, orphaned=orphaned)
        case Discard():
            return Transition(Verb.CANCEL, None, attempts=1, failed=0, reason=outcome.reason)
        case RetryLater():
            return _again(outcome.due_at(now), policy, failed=0, created_at=created_at, reason=None)
        case Failed(reason, retry, orphaned):
            if not retry:
                return _bury(reason, failed=1)
            if failed + 1 >= policy.max_attempts:
                return _bury(f"{reason} (failed attempt {failed + 1} of {policy.max_attempts})")
            delay = min(policy.delay(failed + 1, rand), LONGEST_DELAY_S)
            due_at = now + int(delay * SECOND)
            again = _again(due_at, policy, failed=1, created_at=created_at, reason=reason)
            return replace(again, orphaned=orphaned) if again.due_at is not None else again
        case _:
            assert_never(outcome)


def _again(
    due_at: int, policy: RetryPolicy, *, failed: int, created_at: int, reason: str | None
) -> Transition:
    if due_at > created_at + int(policy.max_age * SECOND):
        return _bury(
            f"{reason or 'put off'} (the next attempt would be past its max_age)", failed=failed
        )
    return Transition(Verb.RETRY, due_at, attempts=1, failed=failed, reason=reason)


def _bury(reason: str, *, failed: int = 1) -> Transition:
    return Transition(Verb.BURY, None, attempts=1, failed=failed, reason=reason[:MAX_REASON_CHARS])


def to_micros(moment: datetime) -> int:
    """Return the microseconds since the epoch of an aware datetime."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def from_micros(micros: int) -> datetime:
    """Return the aware datetime (UTC) of microseconds since the epoch."""
    return datetime.fromtimestamp(micros // SECOND, UTC).replace(microsecond=micros % SECOND)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
