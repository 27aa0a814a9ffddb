"""The jobs that a process holds, and the slots they run in.

Rule 1: whatever a handler raises, ``SystemExit`` and a ``CancelledError`` of its own among it,
        ends only its attempt.
Rule 2: every attempt ends once, here (``_end``); what comes later changes nothing.
Rule 3: a plain function can not be killed. One that overstays its timeout has failed; its thread
        is counted as stuck until it ends, and too many stuck threads stop further plain functions.
Rule 4: what a shutdown breaks off is given back uncounted.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from animica_hooks.core.outcome import COMPLETED, Failed, Outcome, Released, Transition, decide
from animica_hooks.dispatch.runner import (
    Attempt,
    Prepared,
    Runner,
    failure_of,
    outcome_of,
    place_of,
)
from animica_hooks.errors import HandlerTimeout, LeaseLost
from animica_hooks.store.records import LeasedJob, Mark
from animica_hooks.telemetry import Attempted, Fenced, Telemetry

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
        on_end: called after each attempt.
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
        self._on_end = on_end
        self._rand = rand
        self._loop = asyncio.get_running_loop()
        self._coroutines: deque[LeasedJob] = deque()
        self._functions: deque[LeasedJob] = deque()
        self._running: set[Attempt] = set()
        self._busy_threads = 0
        self._held_bytes = 0
        self._paused = False
        self._draining = False
        self._untimed: list[Attempt] = []
        self._ended = asyncio.Event()
        self.stuck_threads = 0
        self.capacity = concurrency * HELD_PER_SLOT

    def free(self) -> int:
        """Return how many more jobs may be leased to this process now."""
        if self._draining or self._paused or self._held_bytes >= HELD_BYTES:
            return 0
        return max(0, self.capacity - self.held)

    @property
    def held(self) -> int:
        """Jobs in memory, running or not."""
        return len(self._running) + len(self._coroutines) + len(self._functions)

    def leases(self) -> list[tuple[int, int]]:
        """Return ids and fences of the held jobs whose leases are to be prolonged."""
        now = self._loop.time()
        running = (
            attempt.job
            for attempt in self._running
            if now < attempt.began + attempt.prepared.timeout + GRACE_S
        )
        return [(job.id, job.fence) for job in (*running, *self._coroutines, *self._functions)]

    def add(self, jobs: Iterable[LeasedJob]) -> None:
        """Take leased jobs; each begins when there is a slot."""
        for job in jobs:
            self._held_bytes += len(job.event.body)
            is_async = self._handlers[job.handler_id].handler.binding.is_async
            (self._coroutines if is_async else self._functions).append(job)
        self._begin_queued()

    async def run_alone(self, job: LeasedJob) -> None:
        """Run a job while nothing else runs; only between ``pause`` and ``resume``."""
        self._held_bytes += len(job.event.body)
        attempt = self._begin(job)
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

    async def drain(self, seconds: float) -> None:
        """Give back what has not begun, wait for what runs, break off the rest.

        Args:
            seconds: how long handlers may go on.
        """
        self._draining = True
        self._begin_queued()
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
            for job in (*self._coroutines, *self._functions):
                self._held_bytes -= len(job.event.body)
                transition = self._decide(Released(), job)
                self._mark(Mark(job.id, job.fence, job.attempts + 1, transition))
            self._coroutines.clear()
            self._functions.clear()
        elif not self._paused:
            while self._coroutines and len(self._running) < self._concurrency:
                self._begin(self._coroutines.popleft())
            while self._functions and self._thread_is_free():
                self._begin(self._functions.popleft())

    def _thread_is_free(self) -> bool:
        return (
            len(self._running) < self._concurrency
            and self._busy_threads < self._threads
            and self.stuck_threads < self._threads * STUCK_PER_THREAD
        )

    def _begin(self, job: LeasedJob) -> Attempt:
        attempt = Attempt(self._handlers[job.handler_id], job, self._loop.time())
        self._running.add(attempt)
        self._busy_threads += not attempt.prepared.handler.binding.is_async
        attempt.task = self._loop.create_task(self._run(attempt))
        if not self._untimed:
            self._loop.call_later(_UNTIMED_S, self._set_timers)
        self._untimed.append(attempt)
        return attempt

    def _set_timers(self) -> None:
        """Set the timers of attempts that are not over by now: most are, and need none."""
        for attempt in self._untimed:
            if not attempt.over:
                when = attempt.began + attempt.prepared.timeout
                attempt.timer = self._loop.call_at(when, self._time_out, attempt)
        self._untimed.clear()

    async def _run(self, attempt: Attempt) -> None:
        try:
            if attempt.prepared.handler.binding.is_async:
                marked = await self._runner.run(attempt)
            else:
                marked = await self._run_in_thread(attempt)
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
        """End an attempt: have it written, tell of it, and go on with the next.

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
        self._busy_threads -= not attempt.prepared.handler.binding.is_async
        self._held_bytes -= len(job.event.body)
        if ended is not None:
            transition = ended if isinstance(ended, Transition) else self._decide(ended, job)
            if not marked:
                failure = failure_of(error) if error and isinstance(ended, Failed) else None
                self._mark(Mark(job.id, job.fence, attempt.number, transition, failure))
            self._tell(attempt, transition, error)
        self._ended.set()
        self._begin_queued()
        self._on_end()

    def _decide(self, outcome: Outcome, job: LeasedJob) -> Transition:
        return decide(
            outcome,
            self._handlers[job.handler_id].retry,
            failed=job.failed,
            created_at=job.created_at,
            now=self._now(),
            rand=self._rand(),
        )

    def _tell(self, attempt: Attempt, transition: Transition, error: BaseException | None) -> None:
        self._telemetry(
            Attempted(
                handler=attempt.prepared.name,
                event_id=attempt.job.event.id,
                job_id=attempt.job.id,
                attempt=attempt.number,
                verb=transition.verb,
                seconds=self._loop.time() - attempt.began,
                error=None if error is None else place_of(error),
                reason=transition.reason,
            )
        )
