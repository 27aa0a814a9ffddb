"""Delete what is done with, a little at a time.

Rule 1: nothing that still has to run goes, nor the event it is about. See ``_holds``.
Rule 2: an event's row is locked before its jobs are looked at. Whoever makes or revives a job of a
        stored event holds that row too (``inbox.hold_bodies``). So no job is due without a body.
Rule 3: the newest row of a table stays: SQLite numbers new rows on from there.
Rule 4: a batch is one short transaction, and the rests between them are longer, so that writers
        wait for one batch at most.
Rule 5: rows are found by primary key, oldest first. No index is kept for this, which every
        delivery would pay for; times follow the keys closely enough to know where to stop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from animica_hooks.core.event import hash_body
from animica_hooks.core.job import FINAL, State
from animica_hooks.core.outcome import SECOND
from animica_hooks.core.retention import Retention
from animica_hooks.errors import StoreError
from animica_hooks.store.base import Store
from animica_hooks.store.tables import (
    events,
    failures,
    jobs,
    quarantine,
    redeliveries,
    replays,
    tasks,
)
from animica_hooks.store.views import Pruned
from animica_hooks.telemetry import logger

PAGE = 1000  # rows looked at together
BATCH = 50  # rows changed together, but
BATCH_BYTES = 1024 * 1024  # no more of what is freed than this, unless one row has more
REST = 3.0  # times what the batch before it took
MIN_REST_S = 0.01

EVERY_S = 3600.0  # between two passes, of all processes together
LOOK_S = 60.0  # between two looks of a process at whether a pass is due
HELD_S = 120.0  # how long a process that has died keeps others from going on

_TASK = "prune"
_IS_PRUNE = tasks.c.name == _TASK
_FINAL = [state.value for state in FINAL]


@dataclass(frozen=True, slots=True)
class _Cuts:
    """The moments before which things must have been done with to be pruned (microseconds)."""

    bodies: int
    events: int
    dead: int | None
    quarantine: int

    @classmethod
    def at(cls, now: int, retention: Retention) -> _Cuts:
        def before(seconds: float) -> int:
            return now - int(seconds * SECOND)

        return cls(
            before(retention.bodies),
            before(retention.events),
            None if retention.dead is None else before(retention.dead),
            before(retention.quarantine),
        )


class _Row(NamedTuple):
    """A row that is old enough, and the bytes that go with it; None where it has lost them."""

    id: int
    at: int
    size: int | None


async def prune(
    store: Store,
    retention: Retention,
    *,
    dry_run: bool = False,
    on_progress: Callable[[Pruned], None] = lambda done: None,
) -> Pruned:
    """Prune all that is old enough now.

    Args:
        dry_run: only count.
        on_progress: is told what has been pruned so far.
    """
    total = Pruned()
    async for done in batches(store, retention, dry_run=dry_run):
        total += done
        on_progress(total)
    return total


async def batches(
    store: Store, retention: Retention, *, dry_run: bool = False
) -> AsyncIterator[Pruned]:
    """Prune, and yield what came of each batch, and of each page that was looked at."""
    cuts = _Cuts.at(store.now(), retention)
    async for gone, bare in _old_events(store, cuts):
        if dry_run:
            yield Pruned(bodies=len(bare), events=len(gone))
            continue
        for batch in _split(gone):
            async with _rest_after():
                count = await _delete_events(store, batch, cuts)
            yield Pruned(events=count)
        for batch in _split(bare):
            async with _rest_after():
                count = await _empty_events(store, batch, cuts)
            yield Pruned(bodies=count)
        yield Pruned()
    size = func.length(quarantine.c.body)
    async for rows in _pages(store, quarantine.c.received_at, cuts.quarantine, size):
        async for count in _delete(store, quarantine.c.id, rows, dry_run=dry_run):
            yield Pruned(quarantined=count)
    async for rows in _pages(store, replays.c.created_at, cuts.events, literal(0)):
        async for count in _delete(store, replays.c.id, rows, dry_run=dry_run):
            yield Pruned(replays=count)


async def _old_events(store: Store, cuts: _Cuts) -> AsyncIterator[tuple[list[_Row], list[_Row]]]:
    """Yield events to delete and events to empty, a page at a time, not locked."""
    size = func.length(events.c.body)
    async for rows in _pages(store, events.c.received_at, cuts.bodies, size):
        async with store.read() as connection:
            newest = await connection.scalar(select(func.max(events.c.seq)))
            aged = {row.id for row in rows if row.at < cuts.events} - {newest}
            kept = await connection.scalars(_held(cuts.events, cuts, aged))
            gone = aged - set(kept)
            full = {row.id for row in rows if row.size is not None} - gone
            kept = await connection.scalars(_held(cuts.bodies, cuts, full))
            bare = full - set(kept)
        yield (
            [row for row in rows if row.id in gone],
            [row for row in rows if row.id in bare],
        )


async def _pages(
    store: Store, at: Column[int], cut: int, size: ColumnElement[int]
) -> AsyncIterator[list[_Row]]:
    """Yield a table's rows from before a moment, by primary key."""
    [key] = at.table.primary_key
    after = 0
    while True:
        page = select(key, at).where(key > after).order_by(key).limit(PAGE).subquery()
        async with store.read() as connection:
            last, oldest = (
                await connection.execute(
                    select(func.max(page.c[key.name]), func.min(page.c[at.name]))
                )
            ).one()
            if last is None or oldest >= cut:
                return
            rows = await connection.execute(
                select(key, at, size).where(key > after, key <= last, at < cut).order_by(key)
            )
            found = [_Row(*row) for row in rows]
        yield found
        after = last


def _holds(cut: int, dead_cut: int | None) -> ColumnElement[bool]:
    """Match jobs that keep their event: that are to run, or not old enough, or dead letters.

    One that others of its line wait behind is such a letter however old it is: without it nobody
    would ever call them.
    """
    behind = jobs.alias("behind")
    is_waited_for = exists().where(
        behind.c.handler_id == jobs.c.handler_id,
        behind.c.ordering_key == jobs.c.ordering_key,
        behind.c.state.not_in(_FINAL),
    )
    is_dead: ColumnElement[bool] = jobs.c.state == State.DEAD.value
    if dead_cut is not None:
        is_dead = and_(is_dead, or_(jobs.c.finished_at >= dead_cut, is_waited_for))
    return or_(jobs.c.state.not_in(_FINAL), jobs.c.finished_at >= cut, is_dead)


def _held(cut: int, cuts: _Cuts, seqs: Collection[int]) -> Select[tuple[int]]:
    """Return the query for those of the events that a job of theirs keeps (ix_hooks_jobs_event)."""
    return select(jobs.c.event_seq).where(jobs.c.event_seq.in_(seqs), _holds(cut, cuts.dead))


def _lock(connection: Connection, seqs: Collection[int]) -> set[int]:
    """Lock events, but those that somebody else holds; return which."""
    query = select(events.c.seq).where(events.c.seq.in_(seqs)).order_by(events.c.seq)
    return set(connection.scalars(query.with_for_update(skip_locked=True)))


def emptied(hashes: Mapping[int, bytes]) -> Update:
    """Return the statement that takes the payload and the headers of events (primary key).

    Args:
        hashes: the digests of the payloads, by event.
    """
    return (
        update(events)
        .where(events.c.seq.in_(hashes))
        .values(body=null(), headers=b"", body_hash=case(hashes, value=events.c.seq))
    )


async def _empty_events(store: Store, rows: Sequence[_Row], cuts: _Cuts) -> int:
    """Take payload and headers from events, and leave the digest of the payload."""
    bodies = select(events.c.seq, events.c.body).where(events.c.seq.in_([row.id for row in rows]))
    async with store.read() as connection:
        found = (await connection.execute(bodies)).all()
    hashes = {seq: hash_body(body) for seq, body in found if body is not None}

    def work(connection: Connection) -> int:
        locked = _lock(connection, hashes)
        free = locked - set(connection.scalars(_held(cuts.bodies, cuts, locked)))
        if free:
            connection.execute(emptied({seq: hashes[seq] for seq in free}))
        return len(free)

    return await store.transact("prune", work)


async def _delete_events(store: Store, rows: Sequence[_Row], cuts: _Cuts) -> int:
    """Delete events with all that is about them."""
    newest = select(func.max(jobs.c.id)).scalar_subquery()
    keeps = case((or_(jobs.c.id == newest, _holds(cuts.events, cuts.dead)), 1), else_=0)

    def work(connection: Connection) -> int:
        locked = _lock(connection, [row.id for row in rows])
        theirs = select(jobs.c.id, jobs.c.event_seq, keeps).where(jobs.c.event_seq.in_(locked))
        found = connection.execute(theirs).all()
        free = locked - {seq for _, seq, kept in found if kept}
        job_ids = [id for id, seq, _ in found if seq in free]
        if job_ids:
            connection.execute(delete(failures).where(failures.c.job_id.in_(job_ids)))
            connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
        if free:
            connection.execute(delete(redeliveries).where(redeliveries.c.event_seq.in_(free)))
            connection.execute(delete(events).where(events.c.seq.in_(free)))
        return len(free)

    return await store.transact("prune", work)


async def _delete(
    store: Store, key: Column[int], rows: Sequence[_Row], *, dry_run: bool
) -> AsyncIterator[int]:
    """Delete rows that nothing hangs on, but the newest of the table."""
    async with store.read() as connection:
        newest = await connection.scalar(select(func.max(key)))
    rows = [row for row in rows if row.id != newest]
    if dry_run:
        yield len(rows)
        return
    for batch in _split(rows):
        gone = delete(key.table).where(key.in_([row.id for row in batch]))
        async with _rest_after(), store.write("prune") as connection:
            deleted = await connection.execute(gone)
        yield deleted.rowcount


def _split(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Yield rows in batches of a bounded size."""
    batch: list[_Row] = []
    size = 0
    for row in rows:
        size += row.size or 0
        if batch and (len(batch) == BATCH or size > BATCH_BYTES):
            yield batch
            batch, size = [], row.size or 0
        batch.append(row)
    if batch:
        yield batch


@asynccontextmanager
async def _rest_after() -> AsyncIterator[None]:
    """Let others go first for a multiple of the time that the block takes."""
    began = time.monotonic()
    yield
    await asyncio.sleep(max(MIN_REST_S, REST * (time.monotonic() - began)))


class Pruner:
    """Prunes now and then, in one of the processes that have the database open."""

    def __init__(self, store: Store, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="animica-hooks prune")

    async def close(self) -> None:
        """Stop after the batch that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # Not all processes at once.
            await asyncio.sleep(LOOK_S * random.uniform(0.5, 1))  # noqa: S311 - no secret
            try:
                if await self._hold(HELD_S):
                    await self._pass()
            except StoreError as error:
                logger.warning("pruning was broken off, and goes on later: %s", error)
            except Exception:  # noqa: BLE001 - a bug, but those after it have to be pruned, too
                logger.exception("pruning was broken off, and goes on later")

    async def _pass(self) -> None:
        total, renewed = Pruned(), time.monotonic()
        async for done in batches(self._store, self._retention):
            total += done
            if time.monotonic() - renewed > HELD_S / 3:
                renewed = time.monotonic()
                await self._keep(HELD_S)
        await self._keep(EVERY_S)
        if total.total:
            logger.info(
                "pruned %d payloads, %d events, %d deliveries in the quarantine",
                total.bodies,
                total.events,
                total.quarantined,
            )

    async def _hold(self, seconds: float) -> bool:
        """Take the task, unless a process has it or has done it of late."""
        store, now = self._store, self._store.now()
        async with store.read() as connection:
            until = await connection.scalar(select(tasks.c.held_until).where(_IS_PRUNE))
        if until is not None and until > now:
            return False
        held = {"held_by": store.owner, "held_until": now + int(seconds * SECOND)}
        if until is None:
            try:
                async with store.write("prune") as connection:
                    await connection.execute(insert(tasks).values(name=_TASK, **held))
            except StoreError:
                return False  # another process was first
            return True
        async with store.write("prune") as connection:
            taken = await connection.execute(
                update(tasks).where(_IS_PRUNE, tasks.c.held_until == until).values(held)
            )
        return bool(taken.rowcount)

    async def _keep(self, seconds: float) -> None:
        until = self._store.now() + int(seconds * SECOND)
        async with self._store.write("prune") as connection:
            await connection.execute(
                update(tasks)
                .where(_IS_PRUNE, tasks.c.held_by == self._store.owner)
                .values(held_until=until)
            )
