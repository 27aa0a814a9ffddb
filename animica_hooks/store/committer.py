"""Group commit: what arrives while a commit runs shares the next one.

Rule 1: one commit at a time, begun as soon as the one before has ended and something waits for
        it. There is no timer that adds latency: at low load a batch is one delivery.
Rule 2: an acknowledgement follows the commit. A delivery whose commit does not end within the ack
        deadline is given up: its sender tries again, and deduplication makes that harmless.
Rule 3: marks of ended attempts wait for company, at most ``LINGER_S``, unless others wait for
        them. A crash in between costs one more run of a handler, which is what at-least-once means.
Rule 4: what would wait too long is refused at once: see ``admission``.
Rule 5: marks stay until they are committed or the store is closed. Only one that the database
        refuses by itself is dropped: its job runs again when its lease runs out.
Rule 6: what the database refuses harms nobody else: a batch that it refuses is committed in halves,
        and these in halves, until what is refused is alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from animica_hooks.core.fair import Claimant
from animica_hooks.errors import StoreError, StoreRefused, StoreUnavailable
from animica_hooks.store.admission import Admission
from animica_hooks.store.records import (
    Batch,
    Committed,
    LeasedJob,
    Mark,
    NewEvent,
    NewQuarantined,
    Receipt,
)
from animica_hooks.telemetry import (
    Conflicted,
    Fenced,
    Quarantined,
    SlowWriter,
    Stored,
    Telemetry,
    logger,
)

LINGER_S = 0.02
MIN_BATCH = 32  # of more than that, half are left for the next, which fills up meanwhile
MAX_BATCH = 256
MAX_WAITING_BYTES = 64 * 1024 * 1024
SLOW_WRITER_S = 1.0
CLOSE_S = 5.0
_SWEEP_S = 0.1
_PAUSE_AFTER_FAILURE_S = 0.1


class CommitsBatches(Protocol):
    """What the committer needs of a store."""

    async def commit(self, batch: Batch) -> Committed: ...

    def slow_writer(self) -> tuple[str, float] | None: ...


Tell: TypeAlias = Callable[[Receipt | StoreError], object]


class _Waiting(msgspec.Struct, gc=False):
    """A delivery, and the request that waits for it to be on disk."""

    delivery: NewEvent | NewQuarantined
    size: int
    deadline: float
    tell: Tell
    told: bool = False

    def end(self, ended: Receipt | StoreError) -> None:
        """Tell the request what became of its delivery, but only once."""
        if self.told:
            return
        self.told = True
        try:
            self.tell(ended)
        except Exception:  # noqa: BLE001 - a bug, but others have to be told as well
            logger.exception("telling of a delivery failed unexpectedly")


class _Taken(NamedTuple):
    """What one commit is to do, and who waits for it."""

    waiting: Sequence[_Waiting] = ()
    marks: Sequence[Mark] = ()
    claim: tuple[Batch, asyncio.Future[list[LeasedJob]]] | None = None

    def parts(self) -> list[_Taken]:
        """Return the same in smaller parts, in the same order; nothing where it is one thing."""
        waiting, marks, claim = self
        kinds = [_Taken(marks=marks), _Taken(waiting), _Taken(claim=claim)]
        kinds = [kind for kind in kinds if any(kind)]
        if len(kinds) > 1:
            return kinds
        half = max(len(waiting), len(marks)) // 2
        if not half:
            return []
        return [_Taken(waiting[:half], marks[:half]), _Taken(waiting[half:], marks[half:])]


class Committer:
    """Collects what has to be written and commits it in batches.

    Args:
        room: tells for how many more jobs this process's worker has room.
        on_leased: takes the jobs it was given, and whether jobs were made that nobody holds.
        on_due: is told when jobs that were given back are due.
        ack_deadline: seconds after which a delivery that is not on disk is given up.

    Attributes:
        failing: the last commit failed.
    """

    def __init__(
        self,
        store: CommitsBatches,
        telemetry: Telemetry,
        *,
        room: Callable[[], int],
        on_leased: Callable[[list[LeasedJob], bool], None],
        on_due: Callable[[int], None] = lambda due_at: None,
        ack_deadline: float,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._room = room
        self._on_leased = on_leased
        self._on_due = on_due
        self._ack_deadline = ack_deadline
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._committing: Sequence[_Waiting] = ()
        self._waiting_bytes = 0
        self._admission = Admission()
        self._marks: list[Mark] = []
        self._claim: tuple[Batch, asyncio.Future[list[LeasedJob]]] | None = None
        self._wake = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._slow_holder = ("", 0.0)
        self._refusing = False
        self._closing = False
        self.failing = False
        self._task = asyncio.create_task(self._run(), name="animica-hooks committer")

    def deliver(self, delivery: NewEvent | NewQuarantined) -> asyncio.Future[Receipt]:
        """Return a future that is done when the delivery is stored; it raises what is told instead.

        Raises:
            StoreUnavailable: see ``submit``.
        """
        future: asyncio.Future[Receipt] = self._loop.create_future()
        self.submit(delivery, partial(_settle, future))
        return future

    def submit(self, delivery: NewEvent | NewQuarantined, tell: Tell) -> None:
        """Have a delivery stored; a call says when it is on disk, at less expense than a future.

        Args:
            tell: called later, once: with ``StoreUnavailable`` where the delivery was not stored in
                time, and with ``StoreRefused`` where the database does not take it.

        Raises:
            StoreUnavailable: too much waits already, or the store is closing.
        """
        size = len(delivery.body)
        if self._refusing:
            raise StoreUnavailable("the receiver is shutting down.")
        if (
            len(self._waiting) >= self._admission.most
            or self._waiting_bytes + size > MAX_WAITING_BYTES
        ):
            raise StoreUnavailable("more deliveries wait than the database takes in time.")
        deadline = self._loop.time() + self._ack_deadline
        self._waiting.append(_Waiting(delivery, size, deadline, tell))
        self._waiting_bytes += size
        self._wake.set()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def mark(self, mark: Mark) -> None:
        """Have an attempt's end written, soon."""
        self._marks.append(mark)
        if mark.frees:
            self._end_linger()
        elif self._linger is None:
            self._linger = self._loop.call_later(LINGER_S, self._end_linger)

    async def claim(
        self, most: int, claimants: Sequence[Claimant], *, orphans: bool = False
    ) -> list[LeasedJob]:
        """Claim due jobs; one claim at a time. Of the claimants the highest priority comes first.

        Raises:
            StoreUnavailable: nothing was claimed.
        """
        future: asyncio.Future[list[LeasedJob]] = self._loop.create_future()
        request = Batch(claim=most, claim_for=claimants, claim_orphans=orphans)
        self._claim = (request, future)
        self._wake.set()
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:  # claimed, too late to return
                self._on_leased(future.result(), False)
            raise

    def refuse(self) -> None:
        """Refuse deliveries from now on."""
        self._refusing = True

    async def close(self) -> None:
        """Commit what waits, then stop; give up where the database does not answer."""
        self._refusing = self._closing = True
        self._wake.set()
        give_up_at = self._loop.time() + CLOSE_S
        while not self._task.done() and self._loop.time() < give_up_at:
            await asyncio.wait([self._task], timeout=_SWEEP_S)
            holder, seconds = self._store.slow_writer() or ("inbox", 0.0)
            if holder != "inbox" and seconds > SLOW_WRITER_S:
                break  # a handler that nobody can stop
        if not self._task.done():
            logger.error("the database does not answer: what has just ended may run again")
            self._task.cancel()
            unanswered = _Taken((*self._committing, *self._waiting))
            _refuse(unanswered, StoreUnavailable("the receiver is shutting down."))
        for timer in (self._linger, self._sweeper):
            if timer is not None:
                timer.cancel()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._has_work():
                taken = self._take()
                self._committing = taken.waiting
                await self._commit(taken)
                self._committing = ()
            elif self._closing:
                return
            else:
                await self._wake.wait()

    def _has_work(self) -> bool:
        marks_due = self._marks and (self._linger is None or self._closing)
        # A store that fails is tried again without waiting for a delivery: readiness depends on it.
        probe = self.failing and not self._closing
        return bool(self._waiting or marks_due or self._claim or probe)

    def _end_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._wake.set()

    async def _commit(self, taken: _Taken) -> bool:
        """Commit what was taken; return False where the database did not answer."""
        # Nobody waits any more for some of it.
        taken = taken._replace(waiting=[w for w in taken.waiting if not w.told])
        batch = self._batch(taken)
        began = self._loop.time()
        try:
            committed = await self._store.commit(batch)
        except StoreRefused as error:
            return await self._commit_apart(taken, error)
        except StoreError as error:
            await self._failed(taken, error)
            return False
        except Exception as error:  # noqa: BLE001 - a bug, but the committer has to live
            return await self._commit_apart(taken, error)
        seconds = self._loop.time() - began
        self._admission.note(len(batch.deliveries), seconds, len(self._waiting))
        try:
            self._succeeded(taken, batch, committed)
        except Exception:  # noqa: BLE001 - the same
            logger.exception("telling of a committed batch failed unexpectedly")
        return True

    async def _commit_apart(self, taken: _Taken, error: Exception) -> bool:
        """Commit the parts of what the database has refused; see ``_commit``."""
        parts = taken.parts()
        answers = True
        for part in parts:
            if answers:
                answers = await self._commit(part)
            else:
                await self._failed(part, StoreUnavailable("the database does not answer."))
        if parts:
            return answers
        if isinstance(error, StoreRefused):
            self._refused(taken, error)
            return True
        logger.error("committing a batch failed unexpectedly", exc_info=error)
        await self._failed(taken, StoreUnavailable(f"{type(error).__name__}."))
        return True  # perhaps to the others

    def _take(self) -> _Taken:
        waiting = [self._waiting.popleft() for _ in range(batch_size(len(self._waiting)))]
        self._waiting_bytes -= sum([each.size for each in waiting])
        taken = _Taken(waiting, self._marks, self._claim)
        self._marks, self._claim = [], None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        return taken

    def _batch(self, taken: _Taken) -> Batch:
        batch = taken.claim[0] if taken.claim else Batch()
        batch.deliveries = [waiting.delivery for waiting in taken.waiting]
        batch.size = sum([waiting.size for waiting in taken.waiting])
        batch.room = max(0, self._room() - batch.claim)
        batch.marks = taken.marks
        return batch

    def _succeeded(self, taken: _Taken, batch: Batch, committed: Committed) -> None:
        self.failing = False
        for waiting, receipt in zip(taken.waiting, committed.receipts, strict=True):
            waiting.end(receipt)
        if taken.claim is not None and not taken.claim[1].done():
            taken.claim[1].set_result(committed.claimed)
        elif committed.claimed:  # whoever asked is gone: the worker gives them back
            self._on_leased(committed.claimed, False)
        if committed.leased or committed.waiting:
            self._on_leased(committed.leased, committed.waiting)
        self._tell_due(batch.marks)
        if batch.deliveries:
            self._tell_stored(batch, committed)
        for noteworthy in committed.conflicts:
            self._telemetry(Conflicted(*noteworthy))
        if committed.fenced:
            self._telemetry(Fenced(committed.fenced))

    def _tell_due(self, marks: Sequence[Mark]) -> None:
        due = [mark.transition.due_at for mark in marks if mark.transition.due_at is not None]
        due += [0 for mark in marks if mark.frees]
        if due:
            self._on_due(min(due))

    def _tell_stored(self, batch: Batch, committed: Committed) -> None:
        receipts = Counter[str](committed.receipts)
        secrets = Counter([delivery.secret_id for delivery in batch.deliveries])
        no_handler = Counter(
            [
                d.event.type
                for d in batch.deliveries
                if isinstance(d, NewEvent) and not (d.handler_ids or d.others)
            ]
        )
        unkeyed = Counter(
            [
                job.unusable
                for delivery, receipt in zip(batch.deliveries, committed.receipts, strict=True)
                if receipt == "new" and isinstance(delivery, NewEvent)
                for job in delivery.others
                if job.unusable is not None
            ]
        )
        self._telemetry(Stored(receipts, secrets, no_handler, unkeyed))
        if not receipts["quarantined"]:
            return
        for held in batch.deliveries:
            if isinstance(held, NewQuarantined):
                self._telemetry(Quarantined(held.endpoint, held.reason, held.body_hash.hex()))

    async def _failed(self, taken: _Taken, error: StoreError) -> None:
        logger.error("a commit failed: %s", error)
        self.failing = True
        _refuse(taken, error)
        self._marks = [*taken.marks, *self._marks]
        if self._closing and not self._waiting:
            # Their leases run out; the jobs run again elsewhere.
            self._marks = []
        if not self._waiting:
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)

    def _refused(self, taken: _Taken, error: StoreRefused) -> None:
        """Tell of one thing that the database refuses. It answers, so it is not failing."""
        self.failing = False
        for waiting in taken.waiting:
            new = waiting.delivery
            if isinstance(new, NewEvent):
                what = f"the event {new.event.id} at {new.event.endpoint}"
            else:
                what = f"a delivery for the quarantine at {new.endpoint}"
            logger.error("%s is not stored, and its sender told to come again: %s", what, error)
        for mark in taken.marks:
            logger.error(
                "how job %d ended can not be noted, so it runs again when its lease runs out: %s",
                mark.job_id,
                error,
            )
        _refuse(taken, error)

    def _sweep(self) -> None:
        """Give up deliveries that are past the ack deadline; name a writer who is slow."""
        now = self._loop.time()
        late = StoreUnavailable("the database did not commit within the ack deadline.")
        for waiting in (*self._committing, *self._waiting):
            if waiting.deadline > now:
                break
            waiting.end(late)
        self._look_at_writer()
        pending = self._committing or self._waiting
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if pending else None

    def _look_at_writer(self) -> None:
        held = self._store.slow_writer()
        if held is None or held[0] == "inbox" or held[1] < SLOW_WRITER_S:
            return
        holder, seconds = held
        began = self._loop.time() - seconds
        last_holder, last_began = self._slow_holder
        if holder == last_holder and abs(began - last_began) < SLOW_WRITER_S:
            return  # said already
        self._slow_holder = (holder, began)
        self._telemetry(SlowWriter(holder, seconds))


def batch_size(waiting: int) -> int:
    """Return how many of the waiting deliveries share the next commit."""
    return min(MAX_BATCH, max(MIN_BATCH, waiting // 2), waiting)


def _refuse(taken: _Taken, error: StoreError) -> None:
    """Tell whoever waits that it was not done."""
    for waiting in taken.waiting:
        waiting.end(error)
    if taken.claim is not None and not taken.claim[1].done():
        taken.claim[1].set_exception(error)


def _settle(future: asyncio.Future[Receipt], ended: Receipt | StoreError) -> None:
    if future.done():  # cancelled: nobody waits
        return
    if isinstance(ended, StoreError):
        future.set_exception(ended)
    else:
        future.set_result(ended)
