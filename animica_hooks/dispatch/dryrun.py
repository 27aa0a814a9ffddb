"""Run a handler in a transaction that is always rolled back, and say what it did."""

from __future__ import annotations

import asyncio
import time

from animica_hooks.core.outcome import Discard, RetryLater
from animica_hooks.core.scrub import scrub
from animica_hooks.dispatch.runner import MAX_MESSAGE_CHARS, Attempt, Prepared, call, call_sync
from animica_hooks.errors import HandlerTimeout
from animica_hooks.store.base import Store
from animica_hooks.store.records import LeasedJob
from animica_hooks.store.views import DryRun
from animica_hooks.threads import DaemonThreads


async def dry_run(
    store: Store, threads: DaemonThreads, prepared: Prepared, job: LeasedJob
) -> DryRun:
    """Run one handler for one event. What it does beside its ``session`` happens all the same."""
    attempt = Attempt(prepared, job, began=time.monotonic())
    writes: list[tuple[str, int]] = []
    error: str | None = None
    try:
        async with asyncio.timeout(prepared.timeout):
            if prepared.is_async:
                async with store.session(prepared.name, record=True) as (session, unit):
                    writes = unit.recorded
                    await call(attempt, session)
                    await session.flush()
            else:
                running = threads.submit(lambda: _sync(store, attempt, writes))
                await asyncio.wrap_future(running)
    except TimeoutError:
        error = _describe(HandlerTimeout(f"it ran longer than {prepared.timeout:g} s."))
    except asyncio.CancelledError:
        raise
    except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the result
        error = _describe(raised)
    return DryRun(
        event_id=job.event.id,
        handler=prepared.name,
        writes=list(writes),
        error=error,
        seconds=time.monotonic() - attempt.began,
    )


def _sync(store: Store, attempt: Attempt, writes: list[tuple[str, int]]) -> None:
    with store.sync_session(attempt.prepared.name, record=True) as (session, unit):
        try:
            call_sync(attempt, session)
            session.flush()
        finally:
            writes.extend(unit.recorded)


def _describe(error: BaseException) -> str:
    if isinstance(error, RetryLater | Discard):
        return f"{type(error).__name__}({scrub(str(error), MAX_MESSAGE_CHARS)})"
    return f"{type(error).__name__}: {scrub(str(error), MAX_MESSAGE_CHARS)}"
