"""What is stored, as people and programs are shown it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class EventView:
    """An event in the inbox.

    Attributes:
        seq: its place in the order of receipt.
        deliveries: how often it was delivered.
        conflicts: how many of these had another body.
        jobs: how many of its jobs are in which state.
        has_body: its payload is there; else it has been pruned or erased.
    """

    seq: int
    id: str
    type: str
    endpoint: str
    received_at: datetime
    deliveries: int = 1
    conflicts: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    has_body: bool = True


@dataclass(frozen=True, slots=True)
class FailureView:
    """What a failed attempt left behind."""

    attempt: int
    at: datetime
    error: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A job.

    Attributes:
        attempts: how many have ended; ``failed`` of them failed.
        due_at: available: not before, or None while it waits for those of its key; leased: until;
            else None.
        key: jobs of one handler that have the same one run in order.
        parked: of a dead one, how many are parked behind it.
    """

    id: int
    event_id: str
    event_type: str
    endpoint: str
    handler: str
    state: str
    attempts: int
    failed: int
    due_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    leased_by: str | None
    reason: str | None
    replay_id: int | None
    replayed_from: int | None
    key: str | None = None
    parked: int = 0


@dataclass(frozen=True, slots=True)
class HandlerView:
    """A handler that some process has or had.

    Attributes:
        seen_at: when a process last had it, to about half a minute.
        paused_at: since when it is paused; None where it is not.
        waiting, leased, parked: its jobs in these states.
    """

    name: str
    endpoint: str
    patterns: tuple[str, ...]
    seen_at: datetime
    paused_at: datetime | None
    waiting: int
    leased: int
    parked: int


@dataclass(frozen=True, slots=True)
class QuarantineView:
    """A signed delivery that is not usable as an event.

    Attributes:
        deliveries: how often the same body came.
    """

    id: int
    endpoint: str
    received_at: datetime
    deliveries: int
    reason: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stats:
    """What waits and what has ended badly, and what this process has counted since its start.

    Attributes:
        parked: jobs that wait behind a dead one of their key, until a person lets them go on.
        held: jobs in this process's memory.
        stuck_threads: threads of plain functions that overstayed their timeout.
    """

    available: int
    leased: int
    parked: int
    dead: int
    quarantined: int
    held: int = 0
    stuck_threads: int = 0
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay would do.

    Attributes:
        count: jobs it would make.
        skipped: jobs it would not make, because one like it is still to run.
        without_body: jobs it can not make, because the payload is pruned or erased.
        oldest, newest: receipt of the first and the last of the events.
    """

    count: int
    by_type: dict[str, int]
    by_handler: dict[str, int]
    oldest: datetime | None
    newest: datetime | None
    skipped: int = 0
    without_body: int = 0


@dataclass(frozen=True, slots=True)
class DryRun:
    """What one handler did with one event in a transaction that was rolled back.

    Attributes:
        writes: what it wrote through its session, as ``("INSERT orders", rows)``.
        error: class and message of what it raised, scrubbed; None where it returned.
        seconds: how long it took.
    """

    event_id: str
    handler: str
    writes: list[tuple[str, int]]
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did.

    Attributes:
        id: of the replay, which its jobs carry; None for a dry run.
        planned: jobs it was to make.
        created: jobs it made.
        skipped: jobs it did not make: one like it is still to run, or the payload is gone.
        runs: of a dry run, what each handler did.
    """

    id: int | None
    planned: int
    created: int
    skipped: int
    runs: tuple[DryRun, ...] = ()


@dataclass(frozen=True, slots=True)
class Pruned:
    """What has been pruned, or would be.

    Attributes:
        bodies: events that lost their payload and headers, and are still known.
        events: events that were deleted, with all that was about them.
        quarantined: deliveries deleted from the quarantine.
        replays: records of replays that were deleted.
    """

    bodies: int = 0
    events: int = 0
    quarantined: int = 0
    replays: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            self.bodies + other.bodies,
            self.events + other.events,
            self.quarantined + other.quarantined,
            self.replays + other.replays,
        )

    @property
    def total(self) -> int:
        """All rows of these."""
        return self.bodies + self.events + self.quarantined + self.replays


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure came to.

    Attributes:
        events: events of the id that lost their payload and headers; 0 where there is none.
        cancelled: jobs of theirs that were not done.
    """

    events: int
    cancelled: int
