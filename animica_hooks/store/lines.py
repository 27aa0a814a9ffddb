"""What joins a line by hand, or late: retried, replayed and unparked jobs, and unsorted ones.

Rule 1: whoever puts a job into a line holds its handler's row, as the inbox does
        (``hold_handlers``), and then the one of the line that is due or leased (``_leader``): it
        does not end meanwhile, and so calls nobody while it is looked who there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from animica_hooks.core.job import State, Verb, sources
from animica_hooks.core.order import Entry, Line, entry
from animica_hooks.core.routing import Handler
from animica_hooks.errors import ReplayRefused
from animica_hooks.store.base import Store
from animica_hooks.store.inbox import call_next, event_of, hold_bodies
from animica_hooks.store.records import new_job
from animica_hooks.store.tables import UNSORTED, events, handlers, in_state, jobs, unfinished

SORTED_AT_ONCE = 100


async def hold_handlers(connection: AsyncConnection, handler_ids: Sequence[int]) -> None:
    """Hold handlers, so that one process at a time adds to their lines."""
    held = select(handlers.c.id).where(handlers.c.id.in_(handler_ids)).order_by(handlers.c.id)
    await connection.execute(held.with_for_update(key_share=True))


def _in_line(handler_id: int, key: str, table: Any = jobs) -> ColumnElement[bool]:
    return and_(table.c.handler_id == handler_id, table.c.ordering_key == key)


def _leads(table: Any = jobs) -> ColumnElement[bool]:
    """Match what is due or leased."""
    available = and_(table.c.state == State.AVAILABLE.value, table.c.due_at.is_not(None))
    return or_(available, table.c.state == State.LEASED.value)


async def _leader(connection: AsyncConnection, handler_id: int, key: str) -> Any | None:
    """Return the job of a line that is due or leased, and hold it; None where none is."""
    found = select(jobs.c.id).where(
        _in_line(handler_id, key), unfinished(), _leads()
    )  # ix_hooks_jobs_standing
    while True:
        job_id = await connection.scalar(found.limit(1))
        if job_id is None:
            return None
        held = select(jobs).where(jobs.c.id == job_id, _leads()).with_for_update()
        leader = (await connection.execute(held)).one_or_none()
        if leader is not None:  # else it has just ended, and called the next
            return leader


async def hasten(connection: AsyncConnection, job_id: int, now: int) -> bool:
    """Make a job that waits for its next attempt due now; False where it does not.

    One that waits for others of its line has no due date, and gets none.
    """
    hastened = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, in_state(State.AVAILABLE), jobs.c.due_at.is_not(None))
        .values(due_at=case((jobs.c.due_at > now, now), else_=jobs.c.due_at))
    )
    return bool(hastened.rowcount)


async def revive(connection: AsyncConnection, job_id: int, now: int) -> bool:
    """Make a dead or cancelled job available again, as if it were made now, at its old place.

    Its failed attempts and its age are counted anew; the number of its attempts goes on.

    Returns:
        False where there is no such job in one of these states.

    Raises:
        ReplayRefused: its event's payload has been pruned or erased.
    """
    row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).one_or_none()
    if row is None or row.state not in sources(Verb.REVIVE):
        return False
    if not await hold_bodies(connection, [row.event_seq]):
        raise ReplayRefused(
            f"job {job_id} can not be retried: the payload of its event has been pruned or erased."
        )
    due_at: int | None = now
    if row.ordering_key is not None:
        await hold_handlers(connection, [row.handler_id])
        if await _leader(connection, row.handler_id, row.ordering_key) is not None:
            due_at = None
    revived = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_(sources(Verb.REVIVE)))
        .values(
            state=State.AVAILABLE.value,
            due_at=due_at,
            created_at=now,
            failed=0,
            # One that was never run may be dead because no key could be made of its event.
            orphaned=0 if row.attempts or row.ordering_key else UNSORTED,
            reason=None,
            finished_at=None,
        )
    )
    return bool(revived.rowcount)


async def unpark(
    store: Store,
    *,
    handler: str | None = None,
    key: str | None = None,
    ids: Sequence[int] | None = None,
) -> int:
    """Let those that a dead job has parked or blocked go on; return how many jobs these are.

    Args:
        ids: of jobs, whose lines are meant.
    """
    async with store.read() as connection:
        stopped = (await connection.execute(_stopped(handler, key, ids))).all()
    went_on = 0
    for handler_id, ordering_key in stopped:
        async with store.write("jobs unpark") as connection:
            went_on += await _unpark(connection, handler_id, ordering_key, store.now())
    return went_on


def _stopped(handler: str | None, key: str | None, ids: Sequence[int] | None) -> Any:
    """Return the query of the lines where somebody is parked, or waits for nobody."""
    leader = jobs.alias("leader")
    led = exists().where(
        leader.c.handler_id == jobs.c.handler_id,
        leader.c.ordering_key == jobs.c.ordering_key,
        unfinished("leader"),
        _leads(leader),
    )
    query = (
        select(jobs.c.handler_id, jobs.c.ordering_key)
        .where(
            jobs.c.ordering_key.is_not(None),
            unfinished(),
            or_(jobs.c.state == State.PARKED.value, ~led),
        )
        .distinct()
    )
    if handler is not None:
        query = query.where(
            jobs.c.handler_id.in_(select(handlers.c.id).where(handlers.c.name == handler))
        )
    if key is not None:
        query = query.where(jobs.c.ordering_key == key)
    if ids is not None:
        named = jobs.alias("named")
        query = query.where(
            exists().where(
                named.c.id.in_(ids),
                named.c.handler_id == jobs.c.handler_id,
                named.c.ordering_key == jobs.c.ordering_key,
            )
        )
    return query


async def _unpark(connection: AsyncConnection, handler_id: int, key: str, now: int) -> int:
    await hold_handlers(connection, [handler_id])
    leader = await _leader(connection, handler_id, key)
    freed = await connection.execute(
        update(jobs)
        .where(_in_line(handler_id, key), unfinished(), in_state(State.PARKED))
        .values(state=State.AVAILABLE.value)
    )
    if leader is not None:
        return freed.rowcount
    waiting = await connection.scalar(
        select(func.count()).where(
            _in_line(handler_id, key), unfinished(), in_state(State.AVAILABLE)
        )
    )
    await connection.execute(call_next(Line(handler_id, key, "skip"), now))
    return waiting or 0


async def entries(
    connection: AsyncConnection, lines: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], Entry]:
    """Say how jobs join the ends of lines by a person's word, which no dead job stops."""
    await hold_handlers(connection, sorted({handler_id for handler_id, _ in lines}))
    found: dict[tuple[int, str], Entry] = {}
    for handler_id, key in sorted(set(lines)):
        leader = await _leader(connection, handler_id, key)
        newest = await connection.scalar(
            select(jobs.c.state)
            .where(_in_line(handler_id, key))
            .order_by(jobs.c.id.desc())
            .limit(1)
        )
        if newest == State.PARKED:
            found[handler_id, key] = Entry(State.PARKED, first=False)
        elif leader is not None:
            found[handler_id, key] = Entry(State.AVAILABLE, first=False)
        else:
            found[handler_id, key] = entry(None if newest is None else State(newest), "skip")
    return found


async def sort(store: Store, registered: Mapping[int, Handler]) -> None:
    """Find the lines of jobs that were made where their handler was not: of the oldest."""
    async with store.write("sorting") as connection:
        await hold_handlers(connection, sorted(registered))
        rows = (
            await connection.execute(
                select(jobs.c.id.label("job_id"), jobs.c.handler_id, jobs.c.due_at, events)
                .join(events, events.c.seq == jobs.c.event_seq)
                .where(
                    in_state(State.AVAILABLE),
                    jobs.c.handler_id.in_(registered),
                    jobs.c.orphaned == UNSORTED,
                )
                .order_by(jobs.c.id)
                .limit(SORTED_AT_ONCE)
            )
        ).all()
        for row in rows:
            await _place(connection, row, registered[row.handler_id], store.now())


async def _place(connection: AsyncConnection, row: Any, handler: Handler, now: int) -> None:
    job = new_job(row.handler_id, handler, event_of(row))
    values: dict[str, Any] = {"orphaned": 0}
    if job.unusable is not None:
        values |= {
            "state": State.DEAD.value, "due_at": None, "reason": job.unusable, "finished_at": now,
        }  # fmt: skip
    elif job.line is not None:
        state, first = await _place_in(connection, job.line, row.job_id)
        due_at = row.due_at if first else None
        values |= {"ordering_key": job.line.key, "state": state.value, "due_at": due_at}
    await connection.execute(update(jobs).where(jobs.c.id == row.job_id).values(values))


async def _place_in(connection: AsyncConnection, line: Line, job_id: int) -> Entry:
    """Say how a job joins its line at its place by age; one after it that is due waits again."""
    leader = await _leader(connection, line.handler_id, line.key)
    before = await connection.scalar(
        select(jobs.c.state)
        .where(_in_line(line.handler_id, line.key), jobs.c.id < job_id)
        .order_by(jobs.c.id.desc())
        .limit(1)
    )
    joins = entry(None if before is None else State(before), line.on_dead)
    if leader is None or not joins.first:
        return joins
    if leader.id > job_id and leader.state == State.AVAILABLE and not leader.attempts:
        await connection.execute(update(jobs).where(jobs.c.id == leader.id).values(due_at=None))
        return joins
    return Entry(joins.state, first=False)
