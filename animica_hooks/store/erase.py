"""Take an event's payload away at a person's word, and leave its digest."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, delete, func, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from animica_hooks.core.event import hash_body
from animica_hooks.core.job import State
from animica_hooks.store.base import Store
from animica_hooks.store.lines import hold_handlers
from animica_hooks.store.prune import emptied
from animica_hooks.store.queries import find_seqs
from animica_hooks.store.tables import events, failures, jobs
from animica_hooks.store.views import Erased

REASON = "erased"
_NOT_DONE = tuple(state.value for state in State if state not in (State.SUCCEEDED, State.CANCELLED))


async def erase(store: Store, event_id: str, endpoint: str | None) -> Erased:
    """Erase the payload and the headers of an event, and what its failures say of them.

    Its jobs that are not done are cancelled, dead ones too: without the payload nothing can be
    done. One that is running just now can not commit what it wrote through its session.

    Args:
        endpoint: where it was received; None for wherever there is one of this id.
    """
    async with store.write("erase") as connection:
        found = await find_seqs(connection, [event_id], endpoint)
        query = select(events.c.seq).where(events.c.seq.in_(found)).order_by(events.c.seq)
        # Locked before its jobs are looked at, as when pruning.
        seqs = list(await connection.scalars(query.with_for_update()))
        await _empty(connection, seqs)
        cancelled = await _cancel(connection, seqs, store.now())
        await _forget_failures(connection, seqs)
    return Erased(len(seqs), cancelled)


async def _empty(connection: AsyncConnection, seqs: Collection[int]) -> None:
    rows = await connection.execute(
        select(events.c.seq, events.c.body).where(
            events.c.seq.in_(seqs), events.c.body.is_not(None)
        )
    )
    if hashes := {seq: hash_body(body) for seq, body in rows}:
        await connection.execute(emptied(hashes))


async def _cancel(connection: AsyncConnection, seqs: Collection[int], now: int) -> int:
    undone = jobs.c.event_seq.in_(seqs), jobs.c.state.in_(_NOT_DONE)
    query = select(jobs.c.handler_id, jobs.c.ordering_key).where(*undone)
    lines = sorted(
        {tuple(r) for r in await connection.execute(query) if r.ordering_key is not None}
    )
    await _hold_lines(connection, lines)
    cancelled = await connection.execute(
        update(jobs)
        .where(*undone)
        .values(
            state=State.CANCELLED.value,
            due_at=null(),
            finished_at=now,
            leased_by=null(),
            orphaned=0,
        )
    )
    ended = jobs.c.event_seq.in_(seqs), jobs.c.state == State.CANCELLED.value
    await connection.execute(update(jobs).where(*ended).values(reason=REASON))
    for handler_id, key in lines:
        await _call_first(connection, handler_id, key, now)
    return cancelled.rowcount


async def _hold_lines(connection: AsyncConnection, lines: Sequence[tuple[int, str]]) -> None:
    """Hold handlers, as whoever adds to their lines does, and the first of each line.

    None of these ends meanwhile and calls a job that is being cancelled.
    """
    if not lines:
        return
    await hold_handlers(connection, sorted({handler_id for handler_id, _ in lines}))
    for handler_id, key in lines:
        first = select(jobs.c.id).where(*_alive(handler_id, key), jobs.c.due_at.is_not(None))
        await connection.execute(first.order_by(jobs.c.id).with_for_update())


def _alive(handler_id: int, key: str) -> tuple[ColumnElement[bool], ...]:
    """Match the jobs of a line that are to run (ix_hooks_jobs_line)."""
    return (
        jobs.c.handler_id == handler_id,
        jobs.c.ordering_key == key,
        jobs.c.state.in_((State.AVAILABLE.value, State.LEASED.value)),
    )


async def _call_first(connection: AsyncConnection, handler_id: int, key: str, now: int) -> None:
    """Make the first of a line due, unless one of it is."""
    waiting = await connection.execute(
        select(func.min(jobs.c.id), func.count(jobs.c.due_at)).where(*_alive(handler_id, key))
    )
    first, due = waiting.one()
    if first is not None and not due:
        await connection.execute(update(jobs).where(jobs.c.id == first).values(due_at=now))


async def _forget_failures(connection: AsyncConnection, seqs: Collection[int]) -> None:
    """Delete messages and tracebacks, which can quote a payload."""
    theirs = list(await connection.scalars(select(jobs.c.id).where(jobs.c.event_seq.in_(seqs))))
    await connection.execute(delete(failures).where(failures.c.job_id.in_(theirs)))
