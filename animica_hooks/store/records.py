"""What goes into a store and what comes out: plain values, the same for every database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from animica_hooks.core.event import Event
from animica_hooks.core.outcome import Transition


class NewEvent(msgspec.Struct):
    """A verified, usable delivery, on its way into the inbox.

    Attributes:
        handler_ids: one job is made for each.
    """

    event: Event
    body_hash: bytes
    raw_headers: bytes
    received_at: int
    handler_ids: tuple[int, ...]
    secret_id: str

    @property
    def body(self) -> bytes:
        return self.event.body


class NewQuarantined(msgspec.Struct):
    """A verified delivery that is not usable as an event."""

    endpoint: str
    body: bytes
    body_hash: bytes
    raw_headers: bytes
    received_at: int
    reason: str
    secret_id: str


# What the inbox made of a delivery. All of them are answered alike.
Receipt: TypeAlias = Literal["new", "duplicate", "conflict", "quarantined"]


class LeasedJob(msgspec.Struct):
    """A job that this process holds the lease of, ready to be run."""

    id: int
    fence: int
    handler_id: int
    event: Event
    created_at: int
    attempts: int = 0
    failed: int = 0
    orphaned: bool = False
    replayed_from: int | None = None
    keyed_by: int | None = None


class Failure(NamedTuple):
    """What a failed attempt leaves behind, bounded and scrubbed."""

    error: str
    message: str
    traceback: str


class Mark(msgspec.Struct):
    """How a leased job's attempt ended."""

    job_id: int
    fence: int
    attempt: int
    transition: Transition
    failure: Failure | None = None


@dataclass(slots=True)
class ExpiredLease:
    """A job whose lease has run out: whoever held it has died, or stalled."""

    id: int
    fence: int
    handler_id: int
    attempts: int
    failed: int
    created_at: int
    orphaned: bool


@dataclass(slots=True)
class Batch:
    """All that one transaction of the inbox does.

    Attributes:
        room: for how many jobs of ``events`` the worker of this process has room: these are
            inserted already leased to it.
        renewals: ids and fences of the jobs whose lease is to be prolonged.
        claim: at most this many due jobs are claimed, of the handlers ``claim_for``.
        claim_orphans: claim jobs that have to run alone, instead of all others.
    """

    deliveries: list[NewEvent | NewQuarantined] = field(default_factory=list)
    room: int = 0
    marks: Sequence[Mark] = ()
    renewals: Sequence[tuple[int, int]] = ()
    claim: int = 0
    claim_for: Sequence[int] = ()
    claim_orphans: bool = False


@dataclass(slots=True)
class Committed:
    """What a batch came to, once it is on disk.

    Attributes:
        receipts: one for each delivery, in order.
        leased: jobs inserted as leased.
        claimed: jobs claimed.
        waiting: jobs were inserted that nobody holds.
        fenced: marks and renewals that came too late and changed nothing.
        conflicts: endpoint, event id, and the hex hashes of the stored and the received body.
    """

    receipts: list[Receipt] = field(default_factory=list)
    leased: list[LeasedJob] = field(default_factory=list)
    claimed: list[LeasedJob] = field(default_factory=list)
    waiting: bool = False
    fenced: int = 0
    conflicts: list[tuple[str, str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Due:
    """When jobs of a handler may next be claimed (microseconds), or None.

    Attributes:
        alone: the same for its orphaned jobs.
    """

    handler_id: int
    normal: int | None
    alone: int | None
