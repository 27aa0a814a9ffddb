"""The worker of a process: it leases jobs, keeps the leases, and lets go in the end.

Rule 1: fresh jobs come leased with the commit that stored their event, while there is room, of
        which those that wait get half. These are claimed: when the worker knows that they are
        due, and else at most ``POLL_S`` later. What a look at the database has found to be due is
        claimed from for a while without another.
Rule 2: a lease is renewed until the attempt has ended, or has outlasted its timeout and a grace,
        whatever the handler does to the event loop (``Heartbeat``).
Rule 3: jobs whose process died are given back uncounted and run alone, one at a time. Only one
        that dies alone is charged with it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence

from animica_hooks.core.fair import Claimant
from animica_hooks.core.job import Verb
from animica_hooks.core.outcome import SECOND, Failed, Outcome, Released, Transition, decide
from animica_hooks.dispatch.heartbeat import Heartbeat
from animica_hooks.dispatch.runner import Prepared, Runner, failure_of
from animica_hooks.dispatch.slots import Slots
from animica_hooks.errors import HandlerCrashed, StoreError
from animica_hooks.store import inbox, lines
from animica_hooks.store.base import Store
from animica_hooks.store.committer import Committer
from animica_hooks.store.records import ExpiredLease, LeasedJob, Mark
from animica_hooks.telemetry import Telemetry, logger

POLL_S = 1.0
MIN_POLL_S = 0.01  # after jobs were claimed, where nobody tells of others; then doubled each time
_RELY_S = 0.1  # on what a look has found, for as long as claims bring jobs
_PAUSE_S = 0.002  # between two looks at the database
_LAST_LOOK_S = 0.5  # at a shutdown
_LOOK_S = 5.0  # in which it answers, or has gone
_NAMED = 5  # jobs on a line of the log
_ALONE_S = 1.0  # how long orphans may keep the others waiting at first


class Worker:
    """Leases jobs for one event loop of one process. See ``Slots`` for the arguments.

    It holds no job until ``start``.
    """

    def __init__(
        self,
        store: Store,
        telemetry: Telemetry,
        runner: Runner,
        handlers: Mapping[int, Prepared],
        *,
        concurrency: int,
        threads: int,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._handlers = handlers
        self._rand = rand
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._older_wait = True
        self._ready: list[int] = []
        self._look_at = -math.inf
        self._quiet_s = POLL_S
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None
        self._patience = _ALONE_S
        self._orphans_wait_until = 0.0
        self._reclaimed: set[tuple[int, int]] = set()
        self._committer: Committer | None = None
        self.slots = Slots(
            runner,
            telemetry,
            handlers,
            concurrency=concurrency,
            threads=threads,
            now=store.now,
            mark=self._mark,
            on_freed=self.wake,
            on_end=self._on_end,
            rand=rand,
        )
        self._heartbeat = Heartbeat(store, self.slots)

    def start(self, committer: Committer) -> None:
        """Begin to look for jobs."""
        self._committer = committer
        self._looking = asyncio.create_task(self._for_ever(self._look), name="animica-hooks worker")
        self._heartbeat.start()

    def room(self) -> int:
        """Return for how many fresh jobs there is room; half of it while older ones wait."""
        free = self.slots.room_of_any()
        return free // 2 if self._older_wait else free

    def accept(self, jobs: Sequence[LeasedJob], waiting: bool) -> None:
        """Take jobs that were leased to this process with the commit of their events.

        Args:
            waiting: jobs were made that nobody holds.
        """
        if waiting:
            self._older_wait = True
            self._wake.set()
        self.slots.add(jobs)

    def wake(self) -> None:
        """Look for due jobs now."""
        self._wake.set()

    async def drain(self, seconds: float) -> None:
        """Stop: look for no more jobs, and let go of those held. See ``Slots.drain``."""
        assert self._looking is not None, "not started"
        self._stopping = True
        self.slots.stop()
        self._wake.set()
        # A statement that is cancelled leaves its connection to the garbage collector.
        await asyncio.wait([self._looking], timeout=_LAST_LOOK_S)
        self._looking.cancel()
        await self.slots.drain(seconds)
        await self._heartbeat.stop()
        await asyncio.gather(self._looking, return_exceptions=True)
        if self._alarm is not None:
            self._alarm.cancel()

    def _mark(self, mark: Mark) -> None:
        assert self._committer is not None, "a job is held before start"
        self._committer.mark(mark)

    def _on_end(self) -> None:
        if self._older_wait and self.slots.free() >= self.slots.capacity // 2:
            self._wake.set()

    def wake_at(self, due_at: int) -> None:
        """Look again when a job is due, if that is before the next poll."""
        seconds = max((due_at - self._store.now()) / SECOND, 0) + 0.001
        when = self._loop.time() + seconds
        if seconds >= POLL_S or when >= self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm_at = math.inf
        self._wake.set()

    async def _for_ever(self, look: Callable[[], Coroutine[None, None, None]]) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                await look()
            except (StoreError, TimeoutError) as error:
                logger.warning("the worker could not look for jobs: %s", error)
            except Exception:  # noqa: BLE001 - a bug, but the worker has to live
                logger.exception("the worker could not look for jobs")
            await asyncio.sleep(_PAUSE_S)
            try:
                async with asyncio.timeout(POLL_S if self._store.hears else self._quiet_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        if self._ready and self._loop.time() < self._look_at and await self._claim(self._ready):
            return
        ids = list(self._handlers)
        async with self._store.read() as connection, asyncio.timeout(_LOOK_S):
            expired = await inbox.expired_leases(connection, ids, self._store.now())
            due = await inbox.due(connection, ids)
        self._reclaim(expired)
        now = self._store.now()
        orphans = [Claimant(d.handler_id) for d in due if d.alone is not None and d.alone <= now]
        if orphans and self._loop.time() >= self._orphans_wait_until:
            await self._run_orphans(orphans)
        self._ready = [d.handler_id for d in due if d.normal is not None and d.normal <= now]
        self._look_at = self._loop.time() + _RELY_S
        self._older_wait = bool(self._ready)
        self._quiet_s = min(2 * self._quiet_s, POLL_S)
        if unsorted := [d.handler_id for d in due if d.unsorted]:
            await self._sort(unsorted)
        elif self._ready:
            await self._claim(self._ready)
        later = [at for d in due for at in (d.normal, d.alone) if at is not None and at > now]
        if later:
            self.wake_at(min(later))

    async def _sort(self, handler_ids: Sequence[int]) -> None:
        """Find the lines of jobs that were made where their handlers were not known."""
        await lines.sort(self._store, {id: self._handlers[id].handler for id in handler_ids})
        self._wake.set()

    async def _claim(self, ready: Sequence[int]) -> bool:
        """Claim jobs of these handlers; tell whether there were some."""
        wanted = self.slots.free()
        claimants = [
            self._handlers[id].claimant(id)._replace(most=most)
            for id in ready
            if (most := self.slots.room_of(id))
        ]
        if not wanted or not claimants:
            return False
        random.shuffle(claimants)  # so that what is left of an even share goes to each in turn
        claimants.sort(key=lambda claimant: -claimant.priority)
        claimed = await self._committing.claim(wanted, claimants)
        self.slots.add(claimed)
        if claimed:
            self._quiet_s = MIN_POLL_S
            if self.slots.free():
                self._wake.set()
        return bool(claimed)

    @property
    def _committing(self) -> Committer:
        assert self._committer is not None, "not started"
        return self._committer

    async def _run_orphans(self, orphaned: Sequence[Claimant]) -> None:
        """Run jobs whose process died, each with nothing else running beside it.

        Others wait meanwhile, but not for long: where a handler takes its time the orphans let
        them go on, and try again after a poll with more patience.
        """
        try:
            if not await self.slots.pause(self._patience):
                self._patience *= 2
                self._orphans_wait_until = self._loop.time() + POLL_S
                return
            self._patience = _ALONE_S
            until = self._loop.time() + _ALONE_S
            while self._loop.time() < until:
                claimed = await self._committing.claim(1, orphaned, orphans=True)
                if not claimed:
                    break
                await self.slots.run_alone(claimed[0])
        finally:
            self.slots.resume()
            self._wake.set()

    def _reclaim(self, expired: Sequence[ExpiredLease]) -> None:
        """Give back jobs whose lease has run out; charge one that died alone."""
        held = set(self.slots.leases())
        # What was given back by the last look may not be committed yet.
        known, self._reclaimed = self._reclaimed, {(lease.id, lease.fence) for lease in expired}
        if any((lease.id, lease.fence) in held for lease in expired):
            self._heartbeat.wake()  # this process was only late
        lost: list[int] = []
        for lease in expired:
            prepared = self._handlers.get(lease.handler_id)
            if prepared is None or (lease.id, lease.fence) in held | known:
                continue
            if not lease.orphaned:
                lost.append(lease.id)
            outcome: Outcome = Released(orphaned=True)
            if lease.orphaned:
                outcome = Failed("crashed", orphaned=True)
            transition = decide(
                outcome,
                prepared.retry,
                failed=lease.failed,
                created_at=lease.created_at,
                now=self._store.now(),
                rand=self._rand(),
            )
            self._charge(lease, prepared, transition)
        if lost:
            _warn_of_lost(lost)

    def _charge(self, lease: ExpiredLease, prepared: Prepared, transition: Transition) -> None:
        crash = HandlerCrashed("the process died while only this job was running in it.")
        failure = failure_of(crash) if lease.orphaned else None
        line = prepared.line(lease.handler_id, lease.ordering_key)
        self._mark(
            Mark(
                lease.id,
                lease.fence,
                lease.attempts + 1,
                transition,
                failure,
                line,
                frees=not prepared.is_plain,
                unless_after=self._store.now(),
            )
        )
        if lease.orphaned:
            logger.warning(
                "job %d (%s) lost its process, in which it ran alone; the job %s",
                lease.id,
                prepared.name,
                "is dead" if transition.verb is Verb.BURY else "is tried again",
            )


def _warn_of_lost(ids: Sequence[int]) -> None:
    if len(ids) == 1:
        logger.warning("job %d lost its process: it will run alone", ids[0])
        return
    first = ", ".join(map(str, ids[:_NAMED])) + (", ..." if len(ids) > _NAMED else "")
    logger.warning("%d jobs lost their process: each will run alone (%s)", len(ids), first)
