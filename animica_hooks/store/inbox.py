"""Statements that every database runs alike, in SQLAlchemy Core: what the worker asks for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from animica_hooks.core.event import Event
from animica_hooks.core.fair import Claimant, granted
from animica_hooks.core.job import State
from animica_hooks.core.order import Line, entry
from animica_hooks.core.outcome import SECOND, from_micros
from animica_hooks.core.routing import Handler, Recorded
from animica_hooks.errors import LeaseLost
from animica_hooks.store.records import Due, ExpiredLease, Mark, NewJob
from animica_hooks.store.tables import UNSORTED, events, handlers, in_state, jobs, unfinished

T = TypeVar("T")

SEEN_WITHIN = 24 * 3600 * SECOND  # of a handler that no process has had for longer no job is made
GONE_AFTER = 60 * SECOND  # a process that has a handler notes that several times meanwhile
WAITING = (State.AVAILABLE, State.PARKED)
FORGOTTEN = 0  # as ``seen_at``: a person has removed the handler
KEPT_FAILURES = 20  # of each job, the newest

# End an attempt: only with the fence of the lease under which it ran (primary key).
MARK = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("job_id"),
        jobs.c.fence == bindparam("held_fence"),
        jobs.c.due_at <= bindparam("held_until"),
        in_state(State.LEASED),
    )
    .values(
        state=bindparam("new_state"),
        due_at=bindparam("new_due_at"),
        attempts=jobs.c.attempts + bindparam("attempts_more"),
        failed=jobs.c.failed + bindparam("failed_more"),
        orphaned=bindparam("new_orphaned"),
        reason=bindparam("new_reason"),
        finished_at=bindparam("new_finished_at"),
        leased_by=null(),
    )
)


def mark_parameters(mark: Mark, now: int) -> dict[str, Any]:
    """Return the parameters of ``MARK``."""
    transition = mark.transition
    return {
        "job_id": mark.job_id,
        "held_fence": mark.fence,
        "held_until": mark.unless_after,
        "new_state": transition.state.value,
        "new_due_at": transition.due_at,
        "attempts_more": transition.attempts,
        "failed_more": transition.failed,
        "new_orphaned": int(transition.orphaned),
        "new_reason": transition.reason,
        "new_finished_at": now if transition.state.final else None,
    }


def lease_lost(mark: Mark) -> LeaseLost:
    """Return what to raise of a mark that another worker's lease has made void."""
    return LeaseLost(f"the lease of job {mark.job_id} ran out while its handler ran.")


def call_next(line: Line, now: int) -> Update:
    """Return the statement that makes the next job of a line due (ix_hooks_jobs_standing).

    One of a replay that has a rate is due no sooner than that allows: it counts as made then.
    MariaDB locks what it reads to find it: no more than that one, for others end theirs meanwhile.
    """
    due_at = now + line.interval
    waiting = jobs.alias("waiting")
    following = (
        select(waiting.c.id)
        .with_hint(waiting, "FORCE INDEX (ix_hooks_jobs_standing)", "mysql")
        .where(
            waiting.c.handler_id == line.handler_id,
            waiting.c.ordering_key == line.key,
            unfinished("waiting"),
            waiting.c.state == State.AVAILABLE.value,
            waiting.c.due_at.is_(None),
        )
        .order_by(waiting.c.id)
        .limit(1)
        .scalar_subquery()
    )
    return (
        update(jobs)
        .where(jobs.c.id == following)
        .values(due_at=case((jobs.c.created_at > due_at, jobs.c.created_at), else_=due_at))
    )


def joined(job: NewJob, newest: tuple[str, int | None] | None, now: int) -> tuple[str, int | None]:
    """Return the state and the due date that a new job is to be inserted with.

    Args:
        newest: state and end of the newest job of its line.
    """
    if job.unusable is not None:
        return State.DEAD.value, None
    if job.line is None:
        return State.AVAILABLE.value, now
    state, ended_at = newest or (None, None)
    state, first = entry(None if state is None else State(state), job.line.on_dead)
    if not first:
        return state.value, None
    return state.value, max(now, (ended_at or 0) + job.line.interval)


def grant(
    claimant: Claimant, most: int, limited: Sequence[Any] | None, now: int
) -> tuple[int, float]:
    """Return how many of ``most`` jobs a limited handler may begin, and its tokens.

    Args:
        limited: the row of ``LIMITED``, in order; None where the handler has none.
    """
    tokens, tokens_at, leased = limited or (None, None, 0)
    return granted(
        claimant, most, leased=leased, tokens=tokens, tokens_age=now - (tokens_at or now)
    )


def event_of(row: Any) -> Event:
    """Return the event of a row of its table; without a body where that is gone."""
    return Event(
        id=row.id,
        type=row.type,
        body=row.body or b"",
        endpoint=row.endpoint,
        received_at=from_micros(row.received_at),
        raw_headers=row.headers,
    )


def by_fence(leases: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Return the ids of jobs, in order, by the fence of their lease."""
    ids: dict[int, list[int]] = {}
    for job_id, fence in sorted(leases):
        ids.setdefault(fence, []).append(job_id)
    return ids


def chunks(items: Sequence[T], largest: int = 64) -> Iterator[Sequence[T]]:
    """Split a sequence so that few sizes of statement serve all lengths, each prepared once.

    Args:
        largest: a power of two.
    """
    start, size = 0, largest
    while start < len(items):
        while size > len(items) - start:
            size //= 2
        yield items[start : start + size]
        start += size


async def hold_bodies(connection: AsyncConnection, seqs: Collection[int]) -> set[int]:
    """Keep the bodies of events from being pruned or erased until the transaction ends.

    Whoever makes or revives a job of a stored event does so only for these.

    Returns:
        the events that have their bodies.
    """
    found = await connection.scalars(
        select(events.c.seq)
        .where(events.c.seq.in_(seqs), events.c.body.is_not(None))
        .with_for_update(read=True)
    )
    return set(found)


def inserted_id(inserted: CursorResult[Any]) -> int:
    """Return the primary key that an insert of one row was given."""
    key = inserted.inserted_primary_key
    assert key is not None, "not an insert of one row"
    return int(key[0])


async def register_handlers(
    connection: AsyncConnection, registered: Sequence[Handler], now: int
) -> dict[str, int]:
    """Record the handlers of this process; return the ids that their jobs carry, by name.

    Of two releases that call a handler differently only the newer knows both names, and records
    them: a process of the older one that starts after it has the same row, and leaves it its name.
    """
    recorded = (await connection.execute(select(handlers).order_by(handlers.c.id))).all()
    known = {row.name: row for row in recorded}
    names = {name for handler in registered for name in (handler.name, *handler.aliases)}
    elsewhere = {
        former: row
        for row in recorded
        if row.name not in names and row.seen_at != FORGOTTEN
        for former in _all_names(row)
    }
    ids: dict[str, int] = {}
    values: dict[int, dict[str, Any]] = {}
    for handler in registered:
        found: dict[str, Any] = {
            "endpoint": handler.endpoint,
            "patterns": json.dumps(handler.patterns),
            "seen_at": now,
        }
        # The newest row with one of its names becomes its own; the jobs of the others move there.
        rows = [known[name] for name in (handler.name, *handler.aliases) if name in known]
        newer = elsewhere.get(handler.name)
        if newer and newer.id not in values and (not rows or rows[0].seen_at == FORGOTTEN):
            rows = [newer, *rows]
            found = {"seen_at": now}
        else:
            former = {*handler.aliases, *(name for row in rows[:1] for name in _all_names(row))}
            former -= names - {*handler.aliases}
            found |= {"name": handler.name, "former_names": json.dumps(sorted(former))}
        id = rows[0].id if rows else await _insert_handler(connection, found)
        ids[handler.name] = id
        values[id] = found
        for other in rows[1:]:
            await _take_over(connection, id, other, now)
    for id in sorted(values):  # in the same order in all processes: none waits in a circle
        await connection.execute(update(handlers).where(handlers.c.id == id).values(values[id]))
    return ids


def _all_names(row: Any) -> list[str]:
    return [row.name, *json.loads(row.former_names or "[]")]


async def _insert_handler(connection: AsyncConnection, values: Mapping[str, Any]) -> int:
    """Return the id of a new handler, which another process may be registering right now."""
    try:
        async with connection.begin_nested():
            inserted = await connection.execute(insert(handlers).values(values))
            return inserted_id(inserted)
    except IntegrityError:
        same = select(handlers.c.id).where(handlers.c.name == values["name"])
        id = await connection.scalar(same)
        assert id is not None, "it is there, and handlers are never deleted"
        return int(id)


async def _take_over(connection: AsyncConnection, handler_id: int, former: Any, now: int) -> None:
    """Give a handler the jobs of another, which is forgotten.

    Of an event that it has a job of already the other's is not to run any more.
    """
    own = jobs.alias("own")
    has_own = select(own.c.event_seq).where(own.c.handler_id == handler_id)
    await connection.execute(
        update(jobs)
        .where(
            jobs.c.handler_id == former.id,
            jobs.c.state.in_(WAITING),
            # In a derived table, for MariaDB does not read the table that it updates.
            jobs.c.event_seq.in_(select(has_own.subquery().c.event_seq)),
        )
        .values(
            state=State.CANCELLED.value,
            due_at=null(),
            finished_at=now,
            reason="its handler was renamed, and has a job of this event under its new name",
        )
    )
    # Of one that was taken over before, an old process may have made some more.
    which: tuple[ColumnElement[bool], ...]
    which = (unfinished(),) if former.seen_at == FORGOTTEN else ()
    await connection.execute(
        update(jobs).where(jobs.c.handler_id == former.id, *which).values(handler_id=handler_id)
    )
    await forget(connection, former.id)


async def forget(connection: AsyncConnection, handler_id: int) -> None:
    """Make no more jobs of a handler, until a process that has it starts.

    Its row stays: jobs that have ended name it, and nobody else may get its number.
    """
    await connection.execute(
        update(handlers)
        .where(handlers.c.id == handler_id)
        .values(seen_at=FORGOTTEN, paused_at=null())
    )


async def renew_handlers(connection: AsyncConnection, ids: Sequence[int], now: int) -> None:
    """Note that a process has these handlers, unless a person has removed them."""
    for id in sorted(ids):  # in this order, so that no two processes wait for each other
        await connection.execute(
            update(handlers)
            .where(handlers.c.id == id, handlers.c.seen_at != FORGOTTEN)
            .values(seen_at=now)
        )


async def gone_handlers(
    connection: AsyncConnection, now: int, besides: Collection[str] = ()
) -> list[tuple[str, int]]:
    """List handlers that no process has just now, each with how many of its jobs wait.

    Those of which none waits, and none is made any more, are left out.

    Args:
        besides: names that are not asked about.
    """
    waiting = (
        select(func.count())
        .where(in_state(State.AVAILABLE), jobs.c.handler_id == handlers.c.id)
        .with_hint(jobs, "FORCE INDEX (ix_hooks_jobs_available)", "mysql")
        .scalar_subquery()
    )
    rows = await connection.execute(
        select(handlers.c.name, handlers.c.seen_at, waiting.label("waiting"))
        .where(
            handlers.c.seen_at < now - GONE_AFTER,
            handlers.c.seen_at != FORGOTTEN,
            handlers.c.name.not_in(besides),
        )
        .order_by(handlers.c.name)
    )
    return [
        (row.name, row.waiting) for row in rows if row.waiting or row.seen_at > now - SEEN_WITHIN
    ]


async def recorded_handlers(
    connection: AsyncConnection, now: int, own: Collection[int] = ()
) -> list[Recorded]:
    """List the handlers that some process has had of late.

    Args:
        own: ids of those that this process has, whatever the clock says.
    """
    rows = await connection.execute(
        select(
            handlers.c.id,
            handlers.c.name,
            handlers.c.endpoint,
            handlers.c.patterns,
            handlers.c.paused_at,
        )
        .where(
            handlers.c.seen_at != FORGOTTEN,
            or_(handlers.c.seen_at > now - SEEN_WITHIN, handlers.c.id.in_(own)),
        )
        .order_by(handlers.c.id)
    )
    return [
        Recorded(
            row.id,
            row.name,
            row.endpoint,
            tuple(json.loads(row.patterns)),
            row.paused_at is not None,
        )
        for row in rows
    ]


async def pause(connection: AsyncConnection, name: str, now: int | None) -> bool:
    """Pause a handler, or with None let it go on; False where there is none such."""
    paused = await connection.execute(
        update(handlers)
        .where(handlers.c.name == name, handlers.c.seen_at != FORGOTTEN)
        # One that is paused already is so since then.
        .values(paused_at=None if now is None else func.coalesce(handlers.c.paused_at, now))
    )
    return bool(paused.rowcount)


async def due(connection: AsyncConnection, handler_ids: Sequence[int]) -> list[Due]:
    """Say when each handler's next jobs are due (one probe of ix_hooks_jobs_available each)."""

    def of_kind(orphaned: int) -> ColumnElement[bool]:
        return and_(
            in_state(State.AVAILABLE),
            jobs.c.handler_id == handlers.c.id,
            jobs.c.orphaned == orphaned,
        )

    def earliest(orphaned: int) -> Any:
        return (
            select(func.min(jobs.c.due_at))
            .where(of_kind(orphaned))
            .with_hint(jobs, "FORCE INDEX (ix_hooks_jobs_available)", "mysql")
            .scalar_subquery()
        )

    unsorted = exists().where(of_kind(UNSORTED))

    rows = await connection.execute(
        select(handlers.c.id, earliest(0), earliest(1), unsorted).where(
            handlers.c.id.in_(handler_ids), handlers.c.paused_at.is_(None)
        )
    )
    return [Due(id, normal, alone, bool(waits)) for id, normal, alone, waits in rows]


async def has_leases_after(connection: AsyncConnection, until: int) -> bool:
    """Tell whether some lease lasts longer than that (ix_hooks_jobs_leased)."""
    lasting = select(jobs.c.id).where(in_state(State.LEASED), jobs.c.due_at > until).limit(1)
    return await connection.scalar(lasting) is not None


async def shorten_leases(connection: AsyncConnection, until: int) -> None:
    """Let no lease last longer than that."""
    too_long = in_state(State.LEASED), jobs.c.due_at > until
    await connection.execute(update(jobs).where(*too_long).values(due_at=until))


async def expired_leases(
    connection: AsyncConnection, handler_ids: Sequence[int], now: int, limit: int = 500
) -> list[ExpiredLease]:
    """List leases of handlers' jobs that have run out, oldest first (ix_hooks_jobs_leased)."""
    rows = await connection.execute(
        select(
            jobs.c.id,
            jobs.c.fence,
            jobs.c.handler_id,
            jobs.c.attempts,
            jobs.c.failed,
            jobs.c.created_at,
            jobs.c.orphaned,
            jobs.c.ordering_key,
        )
        .where(in_state(State.LEASED), jobs.c.due_at <= now, jobs.c.handler_id.in_(handler_ids))
        # There those of all states are in it; few leases run out, to be sorted.
        .with_hint(jobs, "FORCE INDEX (ix_hooks_jobs_available)", "mysql")
        .order_by(jobs.c.due_at, jobs.c.id)
        .limit(limit)
    )
    return [ExpiredLease(*row[:6], orphaned=bool(row[6]), ordering_key=row[7]) for row in rows]
