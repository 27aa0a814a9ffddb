"""Replay without consequences: every handler in a transaction that is rolled back."""

from __future__ import annotations

from collections.abc import Callable

from animica_hooks.dispatch.dryrun import dry_run
from animica_hooks.errors import ReplayRefused
from animica_hooks.runtime import Runtime
from animica_hooks.store.records import LeasedJob
from animica_hooks.store.replay import ReplayFilters, pairs, plan
from animica_hooks.store.views import DryRun, Replay


async def dry_replay(
    runtime: Runtime,
    filters: ReplayFilters,
    *,
    force: bool,
    on_progress: Callable[[int, int], None],
) -> Replay:
    """Run what a replay would run, one after another, and roll each back.

    Raises:
        ReplayRefused: a handler has no ``session``, so that nothing of it can be rolled back.
    """
    prepared = runtime.prepared()
    planned = await plan(runtime.store, filters, list(prepared))
    bare = [n for n in planned.by_handler if prepared[n].handler.binding.session is None]
    if bare and not force:
        raise ReplayRefused(
            "a dry run can only roll back what is written through session, and these handlers ask "
            f"for none: {', '.join(bare)}. Name others (handlers=, --handler), or have these do in "
            "earnest what they do (force=True, --force)."
        )
    runs: list[DryRun] = []
    skipped = 0
    async for chunk in pairs(runtime.store, filters, list(prepared)):
        for pair in chunk:
            if not pair.replayable:
                skipped += 1
                continue
            job = LeasedJob(
                id=pair.origin or 0,
                fence=0,
                handler_id=pair.handler_id,
                event=await runtime.admin.event(pair.seq),
                created_at=runtime.store.now(),
                replayed_from=pair.origin,
                keyed_by=pair.keyed_by,
            )
            runs.append(await dry_run(runtime.store, runtime.threads, prepared[pair.handler], job))
            on_progress(len(runs), planned.count)
    return Replay(None, planned.count, 0, skipped, tuple(runs))
