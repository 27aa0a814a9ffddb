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
    """

    seq: int
    id: str
    type: str
    endpoint: str
    received_at: datetime
    deliveries: int = 1
    conflicts: int = 0
    jobs: dict[str, int] = field(default_factory=dict)


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
        due_at: available: not before; leased: until; else None.
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
        held: jobs in this process's memory.
        stuck_threads: threads of plain functions that overstayed their timeout.
    """

    available: int
    leased: int
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
        oldest, newest: receipt of the first and the last of the events.
    """

    count: int
    by_type: dict[str, int]
    by_handler: dict[str, int]
    oldest: datetime | None
    newest: datetime | None
    skipped: int = 0


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
        planned: jobs it was to make; ``created`` and ``skipped`` what became of them.
        runs: of a dry run, what each handler did.
    """

    id: int | None
    planned: int
    created: int
    skipped: int
    runs: tuple[DryRun, ...] = ()
