"""Statements that every database runs alike, in SQLAlchemy Core: what the worker asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, bindparam, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from animica_hooks.core.job import State
from animica_hooks.core.routing import Handler
from animica_hooks.store.records import Due, ExpiredLease, Mark
from animica_hooks.store.tables import handlers, in_state, jobs

# End an attempt: only with the fence of the lease under which it ran (primary key).
MARK = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("job_id"),
        jobs.c.fence == bindparam("held_fence"),
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
        "new_state": transition.state.value,
        "new_due_at": transition.due_at,
        "attempts_more": transition.attempts,
        "failed_more": transition.failed,
        "new_orphaned": int(transition.orphaned),
        "new_reason": transition.reason,
        "new_finished_at": now if transition.state.final else None,
    }


def inserted_id(inserted: CursorResult[Any]) -> int:
    """Return the primary key that an insert of one row was given."""
    key = inserted.inserted_primary_key
    assert key is not None, "not an insert of one row"
    return int(key[0])


async def register_handlers(
    connection: AsyncConnection, registered: Sequence[Handler], now: int
) -> dict[str, int]:
    """Record the handlers of this process; return the ids that their jobs carry, by name."""
    known = {
        row.name: row
        for row in await connection.execute(
            select(handlers).where(handlers.c.name.in_([h.name for h in registered]))
        )
    }
    ids: dict[str, int] = {}
    for handler in registered:
        values = {
            "endpoint": handler.endpoint,
            "patterns": json.dumps(handler.patterns),
            "seen_at": now,
        }
        if row := known.get(handler.name):
            ids[handler.name] = row.id
            await connection.execute(update(handlers).where(handlers.c.id == row.id).values(values))
        else:
            inserted = await connection.execute(
                insert(handlers).values(name=handler.name, **values)
            )
            ids[handler.name] = inserted_id(inserted)
    return ids


async def due(connection: AsyncConnection, handler_ids: Sequence[int]) -> list[Due]:
    """Say when each handler's next jobs are due (one probe of ix_hooks_jobs_available each)."""

    def earliest(orphaned: int) -> Any:
        return (
            select(func.min(jobs.c.due_at))
            .where(
                in_state(State.AVAILABLE),
                jobs.c.handler_id == handlers.c.id,
                jobs.c.orphaned == orphaned,
            )
            .scalar_subquery()
        )

    rows = await connection.execute(
        select(handlers.c.id, earliest(0), earliest(1)).where(handlers.c.id.in_(handler_ids))
    )
    return [Due(*row) for row in rows]


async def expired_leases(
    connection: AsyncConnection, now: int, limit: int = 500
) -> list[ExpiredLease]:
    """List leases that have run out (ix_hooks_jobs_leased)."""
    rows = await connection.execute(
        select(
            jobs.c.id,
            jobs.c.fence,
            jobs.c.handler_id,
            jobs.c.attempts,
            jobs.c.failed,
            jobs.c.created_at,
            jobs.c.orphaned,
        )
        .where(in_state(State.LEASED), jobs.c.due_at <= now)
        .order_by(jobs.c.due_at)
        .limit(limit)
    )
    return [ExpiredLease(*row[:-1], orphaned=bool(row[-1])) for row in rows]
