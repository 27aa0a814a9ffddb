"""What a person does with an inbox: look, try again, replay, let out of the quarantine.

The command line and ``Hooks`` both work through this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace as with_changes
from typing import Any

from animica_hooks.core.event import (
    Event,
    check_id,
    check_identity,
    check_type,
    decode_payload,
    unpack_headers,
)
from animica_hooks.core.outcome import from_micros
from animica_hooks.core.retention import Retention
from animica_hooks.core.routing import takes
from animica_hooks.errors import MalformedEvent
from animica_hooks.store import inbox, lines, queries, replay
from animica_hooks.store.base import Store
from animica_hooks.store.erase import erase
from animica_hooks.store.prune import prune
from animica_hooks.store.records import Batch, NewEvent, NewJob, Receipt
from animica_hooks.store.replay import ReplayFilters
from animica_hooks.store.views import (
    Erased,
    EventView,
    FailureView,
    HandlerView,
    JobView,
    Pruned,
    QuarantineView,
    Replay,
    ReplayPlan,
    Stats,
)


class Admin:
    """Works on an open store.

    Args:
        known: names of this app's handlers, to which replays are confined; None for all that
            the database has seen.
    """

    def __init__(self, store: Store, known: Sequence[str] | None = None) -> None:
        self.store = store
        self._known = known

    def events(self, **filters: Any) -> AsyncIterator[EventView]:
        """Yield events, newest first. See ``queries.find_events`` for the filters."""
        return queries.find_events(self.store, **filters)

    def jobs(self, **filters: Any) -> AsyncIterator[JobView]:
        """Yield jobs, newest first. See ``queries.find_jobs`` for the filters."""
        return queries.find_jobs(self.store, **filters)

    async def event(self, seq: int) -> Event:
        """Return a stored event, with its body."""
        return await queries.load_event(self.store, seq)

    async def failures(self, job_id: int) -> list[FailureView]:
        return await queries.find_failures(self.store, job_id)

    async def retry_job(self, job_id: int) -> bool:
        """Make a job run again, or now. See ``Hooks.retry_job``."""
        async with self.store.write("jobs retry") as connection:
            now = self.store.now()
            return await lines.hasten(connection, job_id, now) or await lines.revive(
                connection, job_id, now
            )

    async def unpark(self, **which: Any) -> int:
        """Let those behind dead jobs go on. See ``lines.unpark`` for the arguments."""
        return await lines.unpark(self.store, **which)

    async def handlers(self) -> list[HandlerView]:
        """List the handlers that the database knows, by name."""
        return await queries.find_handlers(self.store)

    async def knows_handler(self, name: str) -> bool:
        """Tell whether the database knows a handler of that name."""
        return await queries.knows_handler(self.store, name)

    async def pause(self, name: str) -> bool:
        """Begin no more jobs of a handler, in any process; False where there is none such."""
        async with self.store.write("handlers pause") as connection:
            return await inbox.pause(connection, name, self.store.now())

    async def resume(self, name: str) -> bool:
        """Let a paused handler go on; False where there is none such."""
        async with self.store.write("handlers resume") as connection:
            return await inbox.pause(connection, name, None)

    async def require_gone(self, name: str) -> None:
        """Raise ``HandlerInUse`` where a process that runs has a handler."""
        await queries.require_gone(self.store, name)

    async def remove_handler(self, name: str) -> int | None:
        """Cancel a handler's jobs that nobody runs and forget it, until a process has it again.

        A process that has it now makes no more jobs of it until it is restarted: see
        ``require_gone``.

        Returns:
            How many were cancelled; None where there is no such handler.
        """
        return await queries.remove_handler(self.store, name)

    async def erase(self, event_id: str, *, endpoint: str | None = None) -> Erased:
        """Remove the payload and the headers of an event. See ``Hooks.erase``."""
        return await erase(self.store, event_id, endpoint)

    async def prune(
        self,
        retention: Retention,
        *,
        dry_run: bool = False,
        on_progress: Callable[[Pruned], None] = lambda done: None,
    ) -> Pruned:
        """Prune what is old enough now, or with ``dry_run`` only count it."""
        return await prune(self.store, retention, dry_run=dry_run, on_progress=on_progress)

    def quarantined(self, **filters: Any) -> AsyncIterator[QuarantineView]:
        return queries.find_quarantined(self.store, **filters)

    async def quarantined_content(self, id: int) -> tuple[bytes, Mapping[str, str]] | None:
        """Return the body and the headers of a quarantined delivery."""
        row = await queries.load_quarantined(self.store, id)
        return None if row is None else (row.body, unpack_headers(row.headers))

    async def release(
        self, id: int, *, event_id: str | None = None, type: str | None = None
    ) -> Receipt | None:
        """Store a quarantined delivery as an event, with its jobs, and take it out.

        Args:
            event_id, type: what the body itself does not say.

        Returns:
            What the inbox made of it; None where there is no such row.

        Raises:
            MalformedEvent: it is still not usable.
        """
        row = await queries.load_quarantined(self.store, id)
        if row is None:
            return None
        found_id, found_type = _identity(row.body, event_id, type)
        event: Event = Event(
            id=found_id,
            type=found_type,
            body=row.body,
            endpoint=row.endpoint,
            received_at=from_micros(row.received_at),
            raw_headers=row.headers,
        )
        new = NewEvent(
            event=event,
            received_at=row.received_at,
            handler_ids=(),
            secret_id="",
            others=await self._jobs_for(event),
        )
        committed = await self.store.commit(Batch(deliveries=[new]))
        # Should this not come about, releasing it again finds the event stored already.
        await queries.discard_quarantined(self.store, id)
        return committed.receipts[0]

    async def discard(self, id: int) -> bool:
        """Delete a quarantined delivery; False where there is none such."""
        return await queries.discard_quarantined(self.store, id)

    async def plan_replay(self, filters: ReplayFilters) -> ReplayPlan:
        return await replay.plan(self.store, filters, self._known)

    async def replay(
        self,
        filters: ReplayFilters,
        *,
        rate: float | None = None,
        keep_keys: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, planned: None,
    ) -> Replay:
        return await replay.replay(
            self.store,
            filters,
            self._known,
            rate=rate,
            keep_keys=keep_keys,
            on_progress=on_progress,
        )

    async def stats(self, **of_process: Any) -> Stats:
        return with_changes(await queries.count_states(self.store), **of_process)

    async def _jobs_for(self, event: Event) -> tuple[NewJob, ...]:
        async with self.store.read() as connection:
            recorded = await inbox.recorded_handlers(connection, self.store.now())
        return tuple(
            NewJob(handler.id, unsorted=True)  # where its code is, there its line is known
            for handler in recorded
            if takes(handler.patterns, handler.endpoint, event.endpoint, event.type)
        )


def _identity(body: bytes, event_id: str | None, type: str | None) -> tuple[str, str]:
    """Return id and type: those given, else those that the body says."""
    if event_id is not None and type is not None:
        return check_id(event_id), check_type(type)
    try:
        payload = decode_payload(body)
    except MalformedEvent as error:
        raise MalformedEvent(f"{error}: give both an id and a type") from None
    return check_identity(
        {
            "id": payload.get("id") if event_id is None else event_id,
            "type": payload.get("type") if type is None else type,
        }
    )
