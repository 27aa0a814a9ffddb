"""The jobs that a process holds, and the slots they run in.

Rule 1: whatever a handler raises, ``SystemExit`` and a ``CancelledError`` of its own among it,
        ends only its attempt.
Rule 2: every attempt ends once, here (``_end``); what comes later changes nothing.
Rule 3: a plain function can not be killed. One that overstays its timeout has failed; its thread
        is counted as stuck until it ends, and too many stuck threads stop further plain functions.
Rule 4: what a shutdown breaks off is given back uncounted.
Rule 5: where there are several handlers none takes all the slots, nor all that may be held: a slow
        one leaves a quarter to the others.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from animica_hooks.core.outcome import (
    COMPLETED,
    SECOND,
    Failed,
    Outcome,
    Released,
    Transition,
    decide,
)
from animica_hooks.dispatch.coroutines import InOwnContext
from animica_hooks.dispatch.queue import FairQueue
from animica_hooks.dispatch.runner import (
    Attempt,
    Prepared,
    Runner,
    call,
    end_of,
    failure_of,
    outcome_of,
    place_of,
)
from animica_hooks.errors import HandlerTimeout, LeaseLost
from animica_hooks.store.records import LeasedJob, Mark
from animica_hooks.telemetry import Attempted, EndedAttempt, Fenced, Telemetry

GRACE_S = 5.0  # for a handler that was cancelled to clean up
HELD_PER_SLOT = 8  # jobs leased in advance for each that may run
HELD_BYTES = 32 * 1024 * 1024
STUCK_PER_THREAD = 4
_UNTIMED_S = 0.005
_BREAK_OFF_S = 1.0  # at a shutdown, for handlers that were cancelled to end


class Slots:
    """Runs leased jobs, a bounded number at once.

    Args:
        handlers: by the id under which the store knows them.
        concurrency: handlers that run at once; of these ``threads`` plain functions.
        mark: has the end of an attempt written.
        on_freed: called when a handler has written such an end itself, and others may be due.
        on_end: called after attempts.
    """

    def __init__(
        self,
        runner: Runner,
        telemetry: Telemetry,
        handlers: Mapping[int, Prepared],
        *,
        concurrency: int,
        threads: int,
        now: Callable[[], int],
        mark: Callable[[Mark], None],
        on_freed: Callable[[], None],
        on_end: Callable[[], None],
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._runner = runner
        self._telemetry = telemetry
        self._handlers = handlers
        self._concurrency = concurrency
        self._threads = threads
        self._now = now
        self._mark = mark
        self._on_freed = on_freed
        self._on_end = on_end
        self._rand = rand
        self._loop = asyncio.get_running_loop()
        self._coroutines = FairQueue()
        self._functions = FairQueue()
        self._running: set[Attempt] = set()
        self._running_of: Counter[int] = Counter()
        self._busy_threads = 0
        self._held_bytes = 0
        self._paused = False
        self._draining = False
        self._timing: asyncio.TimerHandle | None = None
        self._untold: list[EndedAttempt] = []
        self._working = False  # a task is on its way through the queue
        self._going_on = False
        self._ended = asyncio.Event()
        self.stuck_threads = 0
        self.capacity = concurrency * HELD_PER_SLOT

    def free(self) -> int:
        """Return how many more jobs may be leased to this process now."""
        if self._draining or self._paused or self._held_bytes >= HELD_BYTES:
            return 0
        # What a handler holds beyond its share, by a commit under way, is not at others' expense.
        most = self._most_of_one(self.capacity)
        return max(0, self.capacity - sum(min(most, self._held_of(id)) for id in self._handlers))

    def room_of(self, handler_id: int) -> int:
        """Return how many more jobs of one handler may be leased, of those that are ``free``."""
        return max(0, self._most_of_one(self.capacity) - self._held_of(handler_id))

    def room_of_any(self) -> int:
        """Return how many more jobs may be leased now, whosoever they are."""
        return min(self.free(), min(map(self.room_of, self._handlers), default=0))

    def _held_of(self, handler_id: int) -> int:
        waiting = self._coroutines.count(handler_id) + self._functions.count(handler_id)
        return waiting + self._running_of[handler_id]

    def _most_of_one(self, of: int) -> int:
        return of if len(self._handlers) < 2 else of - of // 4

    @property
    def held(self) -> int:
        """Jobs in memory, running or not."""
        return len(self._running) + len(self._coroutines) + len(self._functions)

    def leases(self, *, blocked: bool = False) -> list[tuple[int, int]]:
        """Return ids and fences of the held jobs whose leases are to be prolonged; in any thread.

        Args:
            blocked: the event loop does not come round.
        """
        # Not the loop's time, which stands still while it is blocked. Copies, for it may go on.
        now = time.monotonic()
        jobs = [
            attempt.job
            for attempt in list(self._running)
            if now < attempt.began + attempt.prepared.timeout + GRACE_S
        ]
        if jobs or not blocked:
            jobs += [*list(self._coroutines), *list(self._functions)]
        return [(job.id, job.fence) for job in jobs]

    def add(self, jobs: Iterable[LeasedJob]) -> None:
        """Take leased jobs; each begins when there is a slot."""
        for job in jobs:
            self._held_bytes += len(job.event.body)
            is_async = self._handlers[job.handler_id].is_async
            (self._coroutines if is_async else self._functions).add(job)
        self._begin_queued()

    def give_back(self, handler_ids: Iterable[int]) -> None:
        """Let go of what has not begun of handlers that are paused."""
        for handler_id in handler_ids:
            for job in (*self._coroutines.take(handler_id), *self._functions.take(handler_id)):
                self._release(job)

    def _release(self, job: LeasedJob) -> None:
        self._held_bytes -= len(job.event.body)
        self._mark(end_of(job, self._handlers[job.handler_id], self._decide(Released(), job)))

    async def run_alone(self, job: LeasedJob) -> None:
        """Run a job while nothing else runs; only between ``pause`` and ``resume``."""
        self._held_bytes += len(job.event.body)
        attempt = self._begin(job)
        attempt.task = self._loop.create_task(self._run(attempt))
        while not attempt.over:
            await self._next_end()

    async def pause(self, seconds: float) -> bool:
        """Begin nothing more, and wait for what runs; tell whether it ended in time."""
        self._paused = True
        await self._all_over(seconds)
        return not self._running

    def resume(self) -> None:
        self._paused = False
        self._begin_queued()

    def stop(self) -> None:
        """Begin nothing more, and give back what has not begun."""
        self._draining = True
        self._begin_queued()

    async def drain(self, seconds: float) -> None:
        """Stop, wait for what runs, break off the rest.

        Args:
            seconds: how long handlers may go on.
        """
        self.stop()
        await self._all_over(seconds)
        for attempt in self._running:
            attempt.broken_off = True
            if attempt.task is not None and not attempt.returned:
                attempt.task.cancel()
        await self._all_over(_BREAK_OFF_S)
        for attempt in list(self._running):
            self._end(attempt, Released())

    async def _all_over(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._running:
                    await self._next_end()
        except TimeoutError:
            pass

    async def _next_end(self) -> None:
        self._ended.clear()
        await self._ended.wait()

    def _begin_queued(self) -> None:
        if self._draining:
            for job in (*self._coroutines.take_all(), *self._functions.take_all()):
                self._release(job)
        elif not self._working and self._next_queued() is not None:
            self._working = True
            self._loop.create_task(self._run_queued())

    async def _run_queued(self) -> None:
        """Run queued jobs; when one waits, another task goes on with the rest.

        A task in which a handler has waited, or that was cancelled, is not used for another: it may
        be known by then to what the handler used.
        """
        task = cast("asyncio.Task[None]", asyncio.current_task())
        begun = 0
        waited = False
        while not waited and not task.cancelling() and begun < self._concurrency:
            queued = self._next_queued()
            if queued is None:
                break
            begun += 1
            queue, handler_id = queued
            attempt = self._begin(queue.pop(handler_id), task)
            waited = await InOwnContext(self._run(attempt), self._go_on_in_another)
        if not waited:
            self._go_on_in_another()

    def _go_on_in_another(self) -> None:
        self._working = False
        self._begin_queued()

    def _next_queued(self) -> tuple[FairQueue, int] | None:
        """Return whose job may begin now, and its queue; plain functions first, they are few."""
        if self._paused or self._draining or len(self._running) >= self._concurrency:
            return None
        if self._functions and self._thread_is_free():
            handler_id = self._functions.first(self._may_begin)
            if handler_id is not None:
                return self._functions, handler_id
        handler_id = self._coroutines.first(self._may_begin)
        return None if handler_id is None else (self._coroutines, handler_id)

    def _may_begin(self, handler_id: int) -> bool:
        prepared = self._handlers[handler_id]
        slots = self._concurrency if prepared.is_async else min(self._concurrency, self._threads)
        return self._running_of[handler_id] < self._most_of_one(slots)

    def _thread_is_free(self) -> bool:
        return (
            self._busy_threads < self._threads
            and self.stuck_threads < self._threads * STUCK_PER_THREAD
        )

    def _begin(self, job: LeasedJob, task: asyncio.Task[None] | None = None) -> Attempt:
        prepared = self._handlers[job.handler_id]
        attempt = Attempt(prepared, job, self._loop.time(), task)
        self._running.add(attempt)
        self._running_of[job.handler_id] += 1
        if not prepared.is_async:
            self._busy_threads += 1
        if self._timing is None:
            self._timing = self._loop.call_later(_UNTIMED_S, self._set_timers)
        return attempt

    def _set_timers(self) -> None:
        """Set the timers of attempts that are not over by now: most are, and need none."""
        self._timing = None
        for attempt in self._running:
            if attempt.timer is None:
                when = attempt.began + attempt.prepared.timeout
                attempt.timer = self._loop.call_at(when, self._time_out, attempt)

    async def _run(self, attempt: Attempt) -> None:
        prepared = attempt.prepared
        try:
            if not prepared.is_async:
                marked = await self._run_in_thread(attempt)
            elif prepared.has_session:
                marked = await self._runner.run_in_session(attempt)
            else:
                await call(attempt, None)
                marked = False
        except LeaseLost:
            self._telemetry(Fenced(1))
            self._end(attempt, None)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and not self._loop.is_running():
                raise  # the loop is gone, and this coroutine with it
            self._raised(attempt, error)
        else:
            self._end(attempt, COMPLETED, marked=marked)

    async def _run_in_thread(self, attempt: Attempt) -> bool:
        thread = self._runner.run_in_thread(attempt)
        try:
            return await asyncio.wrap_future(thread)
        except asyncio.CancelledError:
            if not thread.done():
                self.stuck_threads += 1
                thread.add_done_callback(lambda _: self._count_out_stuck())
            raise

    def _count_out_stuck(self) -> None:
        def count() -> None:
            self.stuck_threads -= 1
            self._begin_queued()

        try:
            self._loop.call_soon_threadsafe(count)
        except RuntimeError:
            pass  # the loop is closed: nobody counts any more

    def _raised(self, attempt: Attempt, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            if attempt.broken_off:
                self._end(attempt, Released())
                return
            if attempt.timed_out:
                error = HandlerTimeout(
                    f"the handler ran longer than its timeout of {attempt.prepared.timeout:g} s."
                )
        self._end(attempt, outcome_of(error), error)

    def _time_out(self, attempt: Attempt) -> None:
        if attempt.over or attempt.returned or attempt.task is None:
            return
        attempt.timed_out = True
        attempt.task.cancel()
        attempt.timer = self._loop.call_later(GRACE_S, self._abandon, attempt)

    def _abandon(self, attempt: Attempt) -> None:
        """Go on without a handler that swallowed its cancellation."""
        self._raised(attempt, asyncio.CancelledError())

    def _end(
        self,
        attempt: Attempt,
        ended: Outcome | Transition | None,
        error: BaseException | None = None,
        *,
        marked: bool = False,
    ) -> None:
        """End an attempt: have it written; then tell of it, and go on with the next.

        Args:
            ended: how; None where another worker has the job by now.
            marked: it is written already, together with what the handler wrote.
        """
        if attempt.over:
            return
        attempt.over = True
        if attempt.timer is not None:
            attempt.timer.cancel()
        job = attempt.job
        self._running.discard(attempt)
        self._running_of[job.handler_id] -= 1
        if not attempt.prepared.is_async:
            self._busy_threads -= 1
        self._held_bytes -= len(job.event.body)
        if ended is not None:
            transition = ended if isinstance(ended, Transition) else self._decide(ended, job)
            if not marked:
                failure = failure_of(error) if error and isinstance(ended, Failed) else None
                self._mark(end_of(job, attempt.prepared, transition, failure))
            elif not attempt.prepared.is_plain:
                self._on_freed()
            self._untold.append(self._describe(attempt, transition, error))
        if not self._going_on:
            self._going_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Do what is due when attempts have ended, once for all that ended at about one time."""
        self._going_on = False
        self._ended.set()
        self._begin_queued()
        self._on_end()
        if self._untold:
            untold, self._untold = self._untold, []
            self._telemetry(Attempted(untold))

    def _decide(self, outcome: Outcome, job: LeasedJob) -> Transition:
        return decide(
            outcome,
            self._handlers[job.handler_id].retry,
            failed=job.failed,
            created_at=job.created_at,
            now=self._now(),
            rand=self._rand(),
        )

    def _describe(
        self, attempt: Attempt, transition: Transition, error: BaseException | None
    ) -> EndedAttempt:
        job, due_at = attempt.job, transition.due_at
        return EndedAttempt(
            attempt.prepared.name,
            job.event.id,
            job.id,
            job.attempts + 1,
            transition.verb,
            self._loop.time() - attempt.began,
            None if error is None else place_of(error, attempt.prepared.handler.function),
            transition.reason,
            None if due_at is None else max(0.0, (due_at - self._now()) / SECOND),
        )
