"""The life of a job: its states, and every way from one to another.

Rule 1: every transition lives in ``TRANSITIONS``.
Rule 2: who holds a lease proves it by its fence, a number that grows with each claim. A transition
        out of ``leased`` counts only with the fence it was claimed with; one that comes too late
        changes nothing.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from types import MappingProxyType


class State(enum.StrEnum):
    """Where a job stands."""

    AVAILABLE = "available"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    PARKED = "parked"

    @property
    def final(self) -> bool:
        """Nothing but a person moves the job on from here."""
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED})


class Verb(enum.StrEnum):
    """What moves a job from one state to another."""

    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    RELEASE = "release"
    BURY = "bury"
    CANCEL = "cancel"
    PARK = "park"
    UNPARK = "unpark"
    REVIVE = "revive"


TRANSITIONS: Mapping[State, Mapping[Verb, State]] = MappingProxyType(
    {
        State.AVAILABLE: {
            Verb.CLAIM: State.LEASED,
            Verb.CANCEL: State.CANCELLED,
            Verb.PARK: State.PARKED,
        },
        State.LEASED: {
            Verb.COMPLETE: State.SUCCEEDED,
            Verb.RETRY: State.AVAILABLE,
            Verb.RELEASE: State.AVAILABLE,
            Verb.BURY: State.DEAD,
            Verb.CANCEL: State.CANCELLED,
        },
        State.SUCCEEDED: {},
        State.DEAD: {Verb.REVIVE: State.AVAILABLE},
        State.CANCELLED: {Verb.REVIVE: State.AVAILABLE},
        State.PARKED: {Verb.UNPARK: State.AVAILABLE, Verb.CANCEL: State.CANCELLED},
    }
)


def sources(verb: Verb) -> tuple[State, ...]:
    """Return the states that ``verb`` leads out of."""
    return tuple(state for state, verbs in TRANSITIONS.items() if verb in verbs)


def idempotency_key(*, endpoint: str, event_id: str, handler: str, replay_id: int | None) -> str:
    """Return the key that a job's outbound calls carry, the same on each of its attempts.

    It is made of what the job is about, not of its row, so that it outlives a restored database.
    A replay that is to have keys of its own passes its id.
    """
    about = "\0".join((endpoint, event_id, handler, "" if replay_id is None else str(replay_id)))
    return "ahk_" + hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()[:32]
