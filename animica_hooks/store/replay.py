"""Make new jobs for stored events.

Rule 1: a replay makes new jobs and changes none; dedup does not concern it.
Rule 2: of an event and a handler the latest job counts. One that is still to run is not repeated,
        of two replays at the same time neither: they take turns at making jobs.
Rule 3: events are replayed in the order in which they were received; jobs that have a key join the
        end of their line.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from animica_hooks.core.filters import fault_of
from animica_hooks.core.job import State
from animica_hooks.core.order import Entry
from animica_hooks.core.outcome import SECOND, from_micros
from animica_hooks.core.routing import matches, takes
from animica_hooks.errors import ReplayRefused
from animica_hooks.store.base import Store
from animica_hooks.store.inbox import hold_bodies, inserted_id
from animica_hooks.store.lines import entries
from animica_hooks.store.queries import find_seqs, received_between
from animica_hooks.store.tables import UNSORTED, events, handlers, jobs, replays
from animica_hooks.store.views import Replay, ReplayPlan

_EVENTS_AT_ONCE = 1000
_JOBS_AT_ONCE = 250  # others write in between


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFilters:
    """Which events, and which of their handlers, are replayed; all that is given must hold.

    Attributes:
        ids: of events.
        types: patterns.
        since, until: of their receipt; the second is excluded.
        states: the state of the latest job of an event and a handler.
        handlers: their names.
        limit: make at most so many jobs.
        all: replay everything; without it, no filter at all is refused.
    """

    ids: Sequence[str] | None = None
    types: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    states: Sequence[str] | None = None
    handlers: Sequence[str] | None = None
    limit: int | None = None
    all: bool = False

    def check(self) -> None:
        """Raise ``ReplayRefused`` where this can not be meant."""
        given = (self.ids, self.types, self.since, self.until, self.states, self.handlers)
        if not self.all and all(value is None for value in given):
            raise ReplayRefused(
                "a replay without a filter would run every handler for every stored event: say "
                "which (ids, types, since, until, states, handlers), or all=True."
            )
        if fault := fault_of({field.name: getattr(self, field.name) for field in fields(self)}):
            raise ReplayRefused(fault)

    def as_json(self) -> str:
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None}, default=str)


class Pair(NamedTuple):
    """An event and a handler that it is to be handled by again.

    Attributes:
        origin: the latest job of both; None where there was none.
        keyed_by: what the origin's idempotency key is made of.
        key: the origin's line.
        unsorted: only the handler can tell its line: there was no job, or one that was never run,
            which may be dead because no key could be made of its event.
        pending: the origin is still to run.
        has_body: the event has its payload; else it can not be handled.
    """

    seq: int
    type: str
    received_at: int
    handler_id: int
    handler: str
    origin: int | None
    keyed_by: int | None
    key: str | None
    unsorted: bool
    pending: bool
    has_body: bool

    @property
    def replayable(self) -> bool:
        return self.has_body and not self.pending


async def plan(store: Store, filters: ReplayFilters, known: Sequence[str] | None) -> ReplayPlan:
    """Count what a replay would do, without doing it. See ``pairs``."""
    types: Counter[str] = Counter()
    names: Counter[str] = Counter()
    moments: list[int] = []
    skipped = without_body = 0
    async for chunk in pairs(store, filters, known):
        for pair in chunk:
            if not pair.replayable:
                skipped += pair.has_body
                without_body += not pair.has_body
                continue
            types[pair.type] += 1
            names[pair.handler] += 1
            moments = [min([*moments, pair.received_at]), max([*moments, pair.received_at])]
    oldest, newest = (from_micros(m) for m in moments) if moments else (None, None)
    return ReplayPlan(
        types.total(), dict(types), dict(names), oldest, newest, skipped, without_body
    )


async def replay(
    store: Store,
    filters: ReplayFilters,
    known: Sequence[str] | None,
    *,
    rate: float | None = None,
    keep_keys: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, planned: None,
) -> Replay:
    """Make the jobs of a replay.

    Args:
        known: the handlers of this app; None for all that the database knows.
        rate: jobs a second, at most, that become due.
        keep_keys: the new jobs have the idempotency keys of those they repeat.
        on_progress: is told how many of how many are done.
    """
    if rate is not None and not 0 < rate < math.inf:
        raise ReplayRefused(f"rate must be jobs a second, above 0, not {rate!r}.")
    planned = (await plan(store, filters, known)).count
    replay_id = await _begin(store, filters, planned)
    start = store.now()
    created = skipped = 0
    async for chunk in pairs(store, filters, known):
        replayable = [pair for pair in chunk if pair.replayable]
        skipped += len(chunk) - len(replayable)
        for first in range(0, len(replayable), _JOBS_AT_ONCE):
            rows: list[dict[str, Any]] = []
            for pair in replayable[first : first + _JOBS_AT_ONCE]:
                delay = int((created + len(rows)) / rate * SECOND) if rate else 0
                rows.append(_new_job(pair, replay_id, start + delay, store.now(), keep_keys))
            async with store.write("replay") as connection:
                await _take_turn(connection)
                there = await hold_bodies(connection, {row["event_seq"] for row in rows})
                latest = await _latest_jobs(connection, sorted(there))
                made = [row for row in rows if row["event_seq"] in there and _holds(row, latest)]
                if made:
                    await _join_lines(connection, made)
                    await connection.execute(insert(jobs), made)
                created += len(made)
                skipped += len(rows) - len(made)
                await _note(connection, replay_id, created, skipped)
            on_progress(created, planned)
    async with store.write("replay") as connection:
        await _note(connection, replay_id, created, skipped, finished_at=store.now())
    return Replay(replay_id, planned, created, skipped)


async def _take_turn(connection: AsyncConnection) -> None:
    """Keep other replays from making jobs until the transaction ends."""
    unfinished = select(replays.c.id).where(replays.c.finished_at.is_(None)).order_by(replays.c.id)
    await connection.execute(unfinished.with_for_update())


def _holds(row: dict[str, Any], latest: dict[tuple[int, int], Any]) -> bool:
    """Tell whether the job that a new one repeats is the latest still, and is still over."""
    job = latest.get((row["event_seq"], row["handler_id"]))
    if job is None or job.id != row["replayed_from"]:
        return job is None and row["replayed_from"] is None
    return State(job.state).final


async def _join_lines(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Put jobs that have a key at the ends of their lines."""
    keyed = [row for row in rows if row["ordering_key"] is not None]
    found = await entries(connection, [_line(row) for row in keyed]) if keyed else {}
    for row in keyed:
        joins = found[_line(row)]
        row["state"] = joins.state.value
        if not joins.first:
            row["due_at"] = None
        found[_line(row)] = Entry(joins.state, first=False)


def _line(row: dict[str, Any]) -> tuple[int, str]:
    return row["handler_id"], row["ordering_key"]


async def _begin(store: Store, filters: ReplayFilters, planned: int) -> int:
    async with store.write("replay") as connection:
        begun = await connection.execute(
            insert(replays).values(
                created_at=store.now(),
                filters=filters.as_json(),
                planned=planned,
                created=0,
                skipped=0,
            )
        )
    return inserted_id(begun)


async def _note(
    connection: AsyncConnection,
    replay_id: int,
    created: int,
    skipped: int,
    finished_at: int | None = None,
) -> None:
    await connection.execute(
        update(replays)
        .where(replays.c.id == replay_id)
        .values(created=created, skipped=skipped, finished_at=finished_at)
    )


def _new_job(pair: Pair, replay_id: int, due_at: int, now: int, keep_keys: bool) -> dict[str, Any]:
    return {
        "event_seq": pair.seq,
        "handler_id": pair.handler_id,
        "state": State.AVAILABLE.value,
        "due_at": due_at,
        "attempts": 0,
        "failed": 0,
        "fence": 0,
        "orphaned": UNSORTED if pair.unsorted else 0,
        "ordering_key": pair.key,
        "created_at": max(now, due_at),
        "replay_id": replay_id,
        "replayed_from": pair.origin,
        "keyed_by": pair.keyed_by if keep_keys else replay_id,
    }


async def pairs(
    store: Store, filters: ReplayFilters, known: Sequence[str] | None
) -> AsyncIterator[list[Pair]]:
    """Yield what a replay is about, in order, a chunk of events at a time.

    Each chunk is read when it is asked for, so that what was made meanwhile counts.
    """
    filters.check()
    async with store.read() as connection:
        recorded = (await connection.execute(select(handlers))).all()
        seqs = None if filters.ids is None else await find_seqs(connection, filters.ids)
    wanted = _wanted_handlers(recorded, filters, known)
    patterns = {row.id: (json.loads(row.patterns), row.endpoint) for row in recorded}
    after, left = 0, filters.limit
    last = await _last_seq(store)
    while left is None or left > 0:
        async with store.read() as connection:
            found = (await connection.execute(_events_after(after, last, filters, seqs))).all()
            latest = await _latest_jobs(connection, [row.seq for row in found])
        if not found:
            return
        chunk: list[Pair] = []
        for event in found:
            after = event.seq
            if filters.types is not None and not any(
                matches(pattern, event.type) for pattern in filters.types
            ):
                continue
            for handler_id, name in wanted.items():
                job = latest.get((event.seq, handler_id))
                listens, endpoint = patterns[handler_id]
                if filters.states is not None:
                    if job is None or job.state not in filters.states:
                        continue
                elif job is None and not takes(listens, endpoint, event.endpoint, event.type):
                    continue
                chunk.append(_pair(event, handler_id, name, job))
        if left is not None:
            chunk = _cut(chunk, left)
            left -= sum(pair.replayable for pair in chunk)
        yield chunk


async def _last_seq(store: Store) -> int:
    async with store.read() as connection:
        return await connection.scalar(select(func.max(events.c.seq))) or 0


def _events_after(after: int, last: int, filters: ReplayFilters, seqs: Sequence[int] | None) -> Any:
    query = (
        select(
            events.c.seq,
            events.c.endpoint,
            events.c.type,
            events.c.received_at,
            events.c.body.is_not(None).label("has_body"),
        )
        .where(events.c.seq > after, events.c.seq <= last)
        .order_by(events.c.seq)
        .limit(_EVENTS_AT_ONCE)
    )
    if seqs is not None:
        query = query.where(events.c.seq.in_(seqs))
    if filters.states is not None:
        query = query.where(
            exists().where(jobs.c.event_seq == events.c.seq, jobs.c.state.in_(list(filters.states)))
        )
    return received_between(query, filters.since, filters.until)


def _wanted_handlers(
    recorded: Sequence[Any], filters: ReplayFilters, known: Sequence[str] | None
) -> dict[int, str]:
    names = {row.name for row in recorded}
    for name in filters.handlers or ():
        if name not in names:
            raise ReplayRefused(
                f"no handler {name!r} has ever been started with this database; it knows "
                f"{', '.join(sorted(names)) or 'none'}."
            )
    return {
        row.id: row.name
        for row in recorded
        if (filters.handlers is None or row.name in filters.handlers)
        and (known is None or row.name in known)
    }


async def _latest_jobs(
    connection: AsyncConnection, seqs: Sequence[int]
) -> dict[tuple[int, int], Any]:
    if not seqs:
        return {}
    # A long list takes its time to send and to plan; most replays are of a stretch of events.
    is_stretch = seqs[-1] - seqs[0] < 2 * len(seqs)
    of_them = (
        jobs.c.event_seq.between(seqs[0], seqs[-1]) if is_stretch else jobs.c.event_seq.in_(seqs)
    )
    rows = await connection.execute(
        select(
            jobs.c.event_seq,
            jobs.c.handler_id,
            jobs.c.id,
            jobs.c.state,
            jobs.c.attempts,
            jobs.c.keyed_by,
            jobs.c.ordering_key,
        )
        .where(of_them)
        .order_by(jobs.c.id)
    )
    return {(row.event_seq, row.handler_id): row for row in rows}


def _pair(event: Any, handler_id: int, name: str, job: Any | None) -> Pair:
    return Pair(
        seq=event.seq,
        type=event.type,
        received_at=event.received_at,
        handler_id=handler_id,
        handler=name,
        origin=None if job is None else job.id,
        keyed_by=None if job is None else job.keyed_by,
        key=None if job is None else job.ordering_key,
        unsorted=job is None or not (job.attempts or job.ordering_key),
        pending=job is not None and not State(job.state).final,
        has_body=event.has_body,
    )


def _cut(chunk: list[Pair], left: int) -> list[Pair]:
    """Keep the first pairs, up to ``left`` that can be replayed."""
    kept: list[Pair] = []
    for pair in chunk:
        if left == 0:
            break
        kept.append(pair)
        left -= pair.replayable
    return kept
