"""What the tests put into a store, and how they look at what it made of that."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from sqlalchemy import Table, select

from animica_hooks.core.event import Event
from animica_hooks.core.fair import Claimant
from animica_hooks.core.job import Verb
from animica_hooks.core.order import Line, OnDead
from animica_hooks.core.outcome import COMPLETED, SECOND, Transition, from_micros
from animica_hooks.core.routing import Handler, Router
from animica_hooks.store.base import Store
from animica_hooks.store.records import (
    Batch,
    Failure,
    LeasedJob,
    Mark,
    NewEvent,
    NewJob,
    NewQuarantined,
)
from animica_hooks.store.tables import failures, jobs

NOON = 1_700_000_000 * SECOND  # where the tests' clock begins


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.micros = NOON

    def __call__(self) -> int:
        return self.micros

    def advance(self, seconds: float) -> None:
        self.micros += int(seconds * SECOND)


class Opens(Protocol):
    """Opens the database once more, as another process would."""

    def __call__(
        self, *, owner: str = "one", lease_s: float = 30.0, migrate: bool = True
    ) -> Awaitable[Store]: ...


def new_event(
    id: str = "evt_1",
    *,
    type: str = "order.paid",
    body: bytes | None = None,
    handlers: Sequence[int] = (1,),
    others: Sequence[NewJob] = (),
    endpoint: str = "animica",
    headers: bytes = b"",
    received_at: int = NOON,
) -> NewEvent:
    """Return a delivery on its way into the inbox, with a job for each of ``handlers``."""
    content = b'{"id": "%s"}' % id.encode() if body is None else body
    event: Event[Any] = Event(
        id=id,
        type=type,
        body=content,
        endpoint=endpoint,
        received_at=from_micros(received_at),
        raw_headers=headers,
    )
    return NewEvent(event, received_at, tuple(handlers), "secret", tuple(others))


def unusable(body: bytes = b"not JSON", *, endpoint: str = "animica") -> NewQuarantined:
    """Return a delivery on its way into the quarantine."""
    return NewQuarantined(
        endpoint=endpoint,
        body=body,
        body_hash=sha256(body).digest(),
        raw_headers=b"",
        received_at=NOON,
        reason="it is not JSON",
        secret_id="secret",
    )


def completed(job: LeasedJob) -> Mark:
    return Mark(job.id, job.fence, job.attempts + 1, COMPLETED)


def retried(job: LeasedJob, due_at: int, *, number: int | None = None) -> Mark:
    """Return the mark of a failed attempt that will be followed by another at ``due_at``."""
    attempt = job.attempts + 1 if number is None else number
    transition = Transition(Verb.RETRY, due_at, attempts=1, failed=1, reason="ValueError")
    failure = Failure("ValueError", f"attempt {attempt} failed", "Traceback ...")
    return Mark(job.id, job.fence, attempt, transition, failure)


def buried(job: LeasedJob) -> Mark:
    transition = Transition(Verb.BURY, None, attempts=1, failed=1, reason="ValueError")
    failure = Failure("ValueError", "for the last time", "Traceback ...")
    return Mark(job.id, job.fence, job.attempts + 1, transition, failure)


def cancelled(job: LeasedJob, reason: str) -> Mark:
    transition = Transition(Verb.CANCEL, None, attempts=1, failed=0, reason=reason)
    return Mark(job.id, job.fence, job.attempts + 1, transition)


def released(job: LeasedJob, due_at: int, *, orphaned: bool = False) -> Mark:
    transition = Transition(Verb.RELEASE, due_at, attempts=0, failed=0, orphaned=orphaned)
    return Mark(job.id, job.fence, job.attempts + 1, transition)


async def commit_leased(store: Store, *events: NewEvent) -> list[LeasedJob]:
    """Store events whose jobs are all leased to this process at once."""
    committed = await store.commit(Batch(deliveries=list(events), room=1000))
    return committed.leased


def line(
    key: str = "k", *, on_dead: OnDead = "park", interval: float = 0, handler: int = 1
) -> Line:
    """Return the line of a handler's jobs of one key, and how many seconds are between two."""
    return Line(handler, key, on_dead, int(interval * SECOND))


async def claim(
    store: Store, most: int = 100, handlers: Sequence[int] = (1,), *, orphans: bool = False
) -> list[LeasedJob]:
    claimants = [Claimant(id) for id in handlers]
    committed = await store.commit(Batch(claim=most, claim_for=claimants, claim_orphans=orphans))
    return committed.claimed


async def take(store: Store) -> LeasedJob:
    """Claim the one job that is due."""
    [job] = await claim(store)
    return job


async def all_rows(store: Store, table: Table) -> Sequence[Any]:
    """Return a table's rows by primary key."""
    async with store.read() as connection:
        return (await connection.execute(select(table).order_by(*table.primary_key))).all()


async def job_row(store: Store, job_id: int) -> Any:
    async with store.read() as connection:
        return (await connection.execute(select(jobs).where(jobs.c.id == job_id))).one()


async def states(store: Store) -> list[tuple[str, bool]]:
    """Return the state of each job, and whether it has a due date."""
    return [(row.state, row.due_at is not None) for row in await all_rows(store, jobs)]


async def failed_attempts(store: Store, job_id: int) -> list[int]:
    """Return the numbers of the failed attempts that are kept of a job."""
    async with store.read() as connection:
        found = await connection.scalars(
            select(failures.c.attempt).where(failures.c.job_id == job_id).order_by(failures.c.id)
        )
        return list(found)


def handler(name: str, *patterns: str) -> Handler:
    """Return a registered handler that is never run."""
    router = Router()

    async def run(event: Event[Any]) -> None: ...

    router.on(*(patterns or ("*",)), name=name)(run)
    return router.handlers[0]
