"""What goes into a store and what comes out: plain values, the same for every database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from animica_hooks.core.event import Event
from animica_hooks.core.fair import Claimant
from animica_hooks.core.order import Line, NoKey, key_of
from animica_hooks.core.outcome import COMPLETED, SECOND, Transition
from animica_hooks.core.routing import Handler

ENDLESS = 2**63 - 1


class NewJob(NamedTuple):
    """A job that is to be made and claimed: it may not be inserted as leased.

    Attributes:
        unusable: why it can not be run; it is made as a dead one.
        unsorted: its line is not known here: a worker that has its handler finds it.
    """

    handler_id: int
    line: Line | None = None
    unusable: str | None = None
    unsorted: bool = False


def new_job(handler_id: int, handler: Handler | None, event: Event) -> NewJob:
    """Return the job that a handler gets of an event.

    Args:
        handler: None where this process does not have it, and can not tell its line.
    """
    if handler is None:
        return NewJob(handler_id, unsorted=True)
    if handler.key is None:
        return NewJob(handler_id)
    try:
        key = key_of(handler.key, event)
    except NoKey as error:
        return NewJob(handler_id, unusable=str(error))
    return NewJob(handler_id, None if key is None else line_of(handler_id, handler, key))


def line_of(handler_id: int, handler: Handler, key: str) -> Line:
    """Return the line of a handler's jobs of one key."""
    interval = int(SECOND / handler.key_rate) if handler.key_rate else 0
    return Line(handler_id, key, handler.on_dead, interval)


class NewEvent(msgspec.Struct, gc=False):
    """A verified, usable delivery, on its way into the inbox.

    Attributes:
        handler_ids: one job is made for each, leased where there is room.
        others: further jobs.
    """

    event: Event
    received_at: int
    handler_ids: tuple[int, ...]
    secret_id: str
    others: tuple[NewJob, ...] = ()

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


class LeasedJob(msgspec.Struct, gc=False):
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
    ordering_key: str | None = None


class Failure(NamedTuple):
    """What a failed attempt leaves behind, bounded and scrubbed."""

    error: str
    message: str
    traceback: str


class Mark(msgspec.Struct, gc=False):
    """How a leased job's attempt ended.

    Attributes:
        line: that the job is in.
        frees: others may have become due with it, in its line or because its handler is limited.
        unless_after: the mark counts only while the lease does not last longer than this: whoever
            was late with prolonging it keeps the job.
    """

    job_id: int
    fence: int
    attempt: int
    transition: Transition
    failure: Failure | None = None
    line: Line | None = None
    frees: bool = False
    unless_after: int = ENDLESS

    @property
    def is_plain(self) -> bool:
        """Whether the job has succeeded and is in no line: many such are ended at once."""
        return self.transition is COMPLETED and self.line is None


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
    ordering_key: str | None = None


@dataclass(slots=True)
class Batch:
    """All that one transaction of the inbox does.

    Attributes:
        size: of the bodies, in bytes.
        room: for how many jobs of ``events`` the worker of this process has room: these are
            inserted already leased to it.
        claim: at most this many due jobs are claimed, for ``claim_for``: those of the highest
            priority first.
        claim_orphans: claim jobs that have to run alone, instead of all others.
    """

    deliveries: Sequence[NewEvent | NewQuarantined] = ()
    size: int = 0
    room: int = 0
    marks: Sequence[Mark] = ()
    claim: int = 0
    claim_for: Sequence[Claimant] = ()
    claim_orphans: bool = False


@dataclass(slots=True)
class Committed:
    """What a batch came to, once it is on disk.

    Attributes:
        receipts: one for each delivery, in order.
        leased: jobs inserted as leased.
        claimed: jobs claimed.
        waiting: jobs were inserted that nobody holds.
        fenced: marks that came too late and changed nothing.
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
        unsorted: some of its jobs wait for their line to be found.
    """

    handler_id: int
    normal: int | None
    alone: int | None
    unsorted: bool
