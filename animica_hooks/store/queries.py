"""Look at what is stored, and change single rows at a person's word. SQLAlchemy Core only."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from animica_hooks.core.event import Event
from animica_hooks.core.filters import fault_of
from animica_hooks.core.job import State
from animica_hooks.core.outcome import SECOND, from_micros, to_micros
from animica_hooks.errors import ConfigurationError, HandlerInUse
from animica_hooks.store.base import Store
from animica_hooks.store.inbox import FORGOTTEN, GONE_AFTER, WAITING, event_of, forget
from animica_hooks.store.lines import hold_handlers
from animica_hooks.store.tables import (
    events,
    failures,
    handlers,
    in_state,
    jobs,
    quarantine,
    redeliveries,
    unfinished,
)
from animica_hooks.store.views import (
    EventView,
    FailureView,
    HandlerView,
    JobView,
    QuarantineView,
    Stats,
)

PAGE = 200
# So that ix_hooks_jobs_standing serves: whoever is parked is in a line.
_IS_PARKED = (jobs.c.ordering_key.is_not(None), unfinished(), in_state(State.PARKED))


async def find_seqs(
    connection: AsyncConnection, ids: Sequence[str], endpoint: str | None = None
) -> list[int]:
    """Return the sequence numbers of events, in order (uq_hooks_events_endpoint_id).

    That index begins with the endpoint, and no insert is to pay for another: where no endpoint is
    named, all that there are are looked into.
    """
    endpoints = await _endpoints(connection) if endpoint is None else [endpoint]
    found = await connection.scalars(
        select(events.c.seq).where(events.c.endpoint.in_(endpoints), events.c.id.in_(ids))
    )
    return sorted(found)


async def _endpoints(connection: AsyncConnection) -> list[str]:
    """List the endpoints that have events, stepping in the index from each to the next."""
    found: list[str] = []
    following = select(func.min(events.c.endpoint))
    while (endpoint := await connection.scalar(following)) is not None:
        found.append(endpoint)
        following = select(func.min(events.c.endpoint)).where(events.c.endpoint > endpoint)
    return found


async def find_events(
    store: Store,
    *,
    ids: Sequence[str] | None = None,
    type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> AsyncIterator[EventView]:
    """Yield events, newest first, reading a page at a time by key.

    Args:
        type: a pattern: ``a.b``, ``a.*`` or ``*``.
        since, until: of their receipt; the second is excluded.

    Raises:
        ConfigurationError: a filter can not be meant.
    """
    _check(ids=ids, types=None if type is None else [type], since=since, until=until, limit=limit)
    query: Select[Any] = select(
        events.c.seq,
        events.c.id,
        events.c.type,
        events.c.endpoint,
        events.c.received_at,
        events.c.body.is_not(None).label("has_body"),
    ).order_by(events.c.seq.desc())
    if ids is not None:
        async with store.read() as connection:
            query = query.where(events.c.seq.in_(await find_seqs(connection, ids)))
    query = received_between(of_type(query, type), since, until)
    async for rows in _pages(store, query, events.c.seq, limit):
        async with store.read() as connection:
            seqs = [row.seq for row in rows]
            counts = await _job_counts(connection, seqs)
            again = await _redeliveries(connection, seqs)
        for row in rows:
            more, conflicts = again.get(row.seq, (0, 0))
            yield EventView(
                seq=row.seq,
                id=row.id,
                type=row.type,
                endpoint=row.endpoint,
                received_at=from_micros(row.received_at),
                deliveries=1 + more,
                conflicts=conflicts,
                jobs=counts[row.seq],
                has_body=row.has_body,
            )


async def find_jobs(
    store: Store,
    *,
    ids: Sequence[int] | None = None,
    states: Sequence[str] | None = None,
    handler: str | None = None,
    event_id: str | None = None,
    type: str | None = None,
    limit: int | None = None,
) -> AsyncIterator[JobView]:
    """Yield jobs, newest first, reading a page at a time by key.

    Raises:
        ConfigurationError: a filter can not be meant.
    """
    _check(ids=ids, types=None if type is None else [type], states=states, limit=limit)
    query = (
        select(
            jobs,
            events.c.id.label("event_id"),
            events.c.type.label("event_type"),
            events.c.endpoint,
            handlers.c.name.label("handler"),
            _parked_behind().label("parked"),
        )
        .join(events, events.c.seq == jobs.c.event_seq)
        .join(handlers, handlers.c.id == jobs.c.handler_id)
        .order_by(jobs.c.id.desc())
    )
    if ids is not None:
        query = query.where(jobs.c.id.in_(ids))
    if states is not None and len(states) == 1:
        query = query.where(in_state(State(states[0])))
    elif states is not None:
        query = query.where(jobs.c.state.in_([State(state).value for state in states]))
    if handler is not None:
        query = query.where(handlers.c.name == handler)
    if event_id is not None:
        async with store.read() as connection:
            query = query.where(jobs.c.event_seq.in_(await find_seqs(connection, [event_id])))
    async for rows in _pages(store, of_type(query, type), jobs.c.id, limit):
        for row in rows:
            yield JobView(
                id=row.id,
                event_id=row.event_id,
                event_type=row.event_type,
                endpoint=row.endpoint,
                handler=row.handler,
                state=row.state,
                attempts=row.attempts,
                failed=row.failed,
                due_at=_moment(row.due_at),
                created_at=from_micros(row.created_at),
                finished_at=_moment(row.finished_at),
                leased_by=row.leased_by,
                reason=row.reason,
                replay_id=row.replay_id,
                replayed_from=row.replayed_from,
                key=row.ordering_key,
                parked=row.parked,
            )


def _check(**filters: Any) -> None:
    if fault := fault_of(filters):
        raise ConfigurationError(fault)


def _parked_behind() -> ColumnElement[int]:
    """Count those parked behind a job that is dead (ix_hooks_jobs_standing); others are not."""
    behind = jobs.alias("behind")
    parked = select(func.count()).where(
        behind.c.handler_id == jobs.c.handler_id,
        behind.c.ordering_key == jobs.c.ordering_key,
        unfinished("behind"),
        behind.c.state == State.PARKED.value,
        behind.c.id > jobs.c.id,
    )
    return case((in_state(State.DEAD), parked.correlate(jobs).scalar_subquery()), else_=0)


def of_type(query: Select[Any], pattern: str | None) -> Select[Any]:
    """Narrow a query of events to a pattern."""
    if pattern is None or pattern == "*":
        return query
    if pattern.endswith("*"):
        return query.where(events.c.type.startswith(pattern[:-1], autoescape=True))
    return query.where(events.c.type == pattern)


def received_between(
    query: Select[Any], since: datetime | None, until: datetime | None
) -> Select[Any]:
    """Narrow a query of events to those received in a span of time."""
    if since is not None:
        query = query.where(events.c.received_at >= to_micros(since))
    if until is not None:
        query = query.where(events.c.received_at < to_micros(until))
    return query


async def _pages(
    store: Store, query: Select[Any], key: Any, limit: int | None
) -> AsyncIterator[Sequence[Any]]:
    """Read a query that is ordered by ``key``, descending, without an open transaction between."""
    left, before = limit, None
    while left is None or left > 0:
        page = query.limit(PAGE if left is None else min(PAGE, left))
        if before is not None:
            page = page.where(key < before)
        async with store.read() as connection:
            rows = (await connection.execute(page)).all()
        if not rows:
            return
        yield rows
        before = getattr(rows[-1], key.name)
        if left is not None:
            left -= len(rows)


async def _job_counts(
    connection: AsyncConnection, seqs: Sequence[int]
) -> dict[int, dict[str, int]]:
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    rows = await connection.execute(
        select(jobs.c.event_seq, jobs.c.state, func.count())
        .where(jobs.c.event_seq.in_(seqs))
        .group_by(jobs.c.event_seq, jobs.c.state)
    )
    for seq, state, count in rows:
        counts[seq][state] = count
    return counts


async def _redeliveries(
    connection: AsyncConnection, seqs: Sequence[int]
) -> dict[int, tuple[int, int]]:
    rows = await connection.execute(
        select(
            redeliveries.c.event_seq,
            func.sum(redeliveries.c.count),
            func.sum(case((redeliveries.c.conflict, redeliveries.c.count), else_=0)),
        )
        .where(redeliveries.c.event_seq.in_(seqs))
        .group_by(redeliveries.c.event_seq)
    )
    return {seq: (int(count), int(conflicts)) for seq, count, conflicts in rows}


async def load_event(store: Store, seq: int) -> Event:
    """Read one event, with its body; empty where that has been pruned or erased."""
    async with store.read() as connection:
        row = (await connection.execute(select(events).where(events.c.seq == seq))).one()
    return event_of(row)


async def find_failures(store: Store, job_id: int) -> list[FailureView]:
    """List what the failed attempts of a job left behind, oldest first."""
    async with store.read() as connection:
        rows = await connection.execute(
            select(failures).where(failures.c.job_id == job_id).order_by(failures.c.id)
        )
        return [
            FailureView(row.attempt, from_micros(row.at), row.error, row.message, row.traceback)
            for row in rows
        ]


async def find_handlers(store: Store) -> list[HandlerView]:
    """List the handlers that the database knows, by name."""
    async with store.read() as connection:
        recorded = await connection.execute(
            select(handlers).where(handlers.c.seen_at != FORGOTTEN).order_by(handlers.c.name)
        )
        waiting, leased = [
            await _count_by_handler(connection, in_state(state))
            for state in (State.AVAILABLE, State.LEASED)
        ]
        parked = await _count_by_handler(connection, *_IS_PARKED)
    return [
        HandlerView(
            name=row.name,
            endpoint=row.endpoint,
            patterns=tuple(json.loads(row.patterns)),
            seen_at=from_micros(row.seen_at),
            paused_at=_moment(row.paused_at),
            waiting=waiting.get(row.id, 0),
            leased=leased.get(row.id, 0),
            parked=parked.get(row.id, 0),
        )
        for row in recorded
    ]


async def _count_by_handler(
    connection: AsyncConnection, *which: ColumnElement[bool]
) -> dict[int, int]:
    rows = await connection.execute(
        select(jobs.c.handler_id, func.count().label("jobs"))
        .where(*which)
        .group_by(jobs.c.handler_id)
    )
    return {row.handler_id: row.jobs for row in rows}


async def knows_handler(store: Store, name: str) -> bool:
    """Tell whether there is a handler of that name that nobody has removed."""
    known = select(handlers.c.id).where(handlers.c.name == name, handlers.c.seen_at != FORGOTTEN)
    async with store.read() as connection:
        return await connection.scalar(known) is not None


async def require_gone(store: Store, name: str) -> None:
    """Raise ``HandlerInUse`` where a process that runs has a handler.

    One that it has is renewed several times within the time after which it is gone.
    """
    found = select(handlers.c.seen_at).where(handlers.c.name == name)
    async with store.read() as connection:
        seen_at = await connection.scalar(found)
    left = ((seen_at or FORGOTTEN) + GONE_AFTER - store.now()) / SECOND
    if left >= 0:
        raise HandlerInUse(
            f"a process that runs has the handler {name}, or had it less than "
            f"{GONE_AFTER // SECOND} s ago: it would handle no more events until it is restarted. "
            f"End or replace all that have it, and try again after {math.ceil(left) or 1} s; or "
            "stop it for a while with 'animica-hooks handlers pause'."
        )


async def remove_handler(store: Store, name: str) -> int | None:
    """Cancel a handler's jobs that nobody runs, and forget it.

    Returns:
        How many were cancelled; None where there is no such handler.
    """
    async with store.write("handlers remove") as connection:
        handler_id = await connection.scalar(
            select(handlers.c.id).where(handlers.c.name == name, handlers.c.seen_at != FORGOTTEN)
        )
        if handler_id is None:
            return None
        await hold_handlers(connection, [handler_id])
        now = store.now()
        lost = and_(jobs.c.state == State.LEASED.value, jobs.c.due_at <= now)
        cancelled = await connection.execute(
            update(jobs)
            .where(
                jobs.c.handler_id == handler_id,
                unfinished(),
                or_(jobs.c.state.in_(WAITING), lost),
            )
            .values(
                state=State.CANCELLED.value,
                due_at=null(),
                leased_by=null(),
                reason="its handler was removed",
                finished_at=now,
            )
        )
        await forget(connection, handler_id)
    return cancelled.rowcount


async def find_quarantined(
    store: Store, *, ids: Sequence[int] | None = None, limit: int | None = None
) -> AsyncIterator[QuarantineView]:
    """Yield what is in the quarantine, newest first."""
    query = select(
        quarantine.c.id,
        quarantine.c.endpoint,
        quarantine.c.received_at,
        quarantine.c.deliveries,
        quarantine.c.reason,
        func.length(quarantine.c.body).label("size"),
        quarantine.c.body_hash,
    ).order_by(quarantine.c.id.desc())
    if ids is not None:
        query = query.where(quarantine.c.id.in_(ids))
    async for rows in _pages(store, query, quarantine.c.id, limit):
        for row in rows:
            yield QuarantineView(
                id=row.id,
                endpoint=row.endpoint,
                received_at=from_micros(row.received_at),
                deliveries=row.deliveries,
                reason=row.reason,
                size=row.size,
                sha256=row.body_hash.hex(),
            )


async def load_quarantined(store: Store, id: int) -> Any | None:
    """Read one row of the quarantine, with its body; None where there is none."""
    async with store.read() as connection:
        found = await connection.execute(select(quarantine).where(quarantine.c.id == id))
        return found.one_or_none()


async def discard_quarantined(store: Store, id: int) -> bool:
    """Delete a row of the quarantine; False where there is none."""
    async with store.write("quarantine") as connection:
        gone = await connection.execute(delete(quarantine).where(quarantine.c.id == id))
    return bool(gone.rowcount)


async def count_states(store: Store) -> Stats:
    """Count what waits and what has ended badly, at one moment, by partial indexes."""
    of_jobs = (
        (in_state(State.AVAILABLE),), (in_state(State.LEASED),), _IS_PARKED, (in_state(State.DEAD),)
    )  # fmt: skip
    counts = [select(func.count()).select_from(jobs).where(*which) for which in of_jobs]
    counts.append(select(func.count()).select_from(quarantine))
    async with store.read() as connection:
        row = (await connection.execute(select(*[one.scalar_subquery() for one in counts]))).one()
    return Stats(*row)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
