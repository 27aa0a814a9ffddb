"""Turns at SQLite's one write slot, in the order of asking.

SQLite's own ``busy_timeout`` polls, which is unfair: of several writers one can wait for seconds
while another passes it again and again. So all writers of a process queue here, and the one whose
turn it is holds a file lock against the writers of other processes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from animica_hooks.threads import DaemonThreads

OFFER_S = 0.05  # for a coroutine to take over the lock that was taken for it


class FileLock:
    """An exclusive lock between processes, which a process that dies lets go of.

    Args:
        path: of a file of its own, made when it is first locked: closing any descriptor of the
            database itself would drop SQLite's locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        _locks.add(self)

    @property
    def _fd(self) -> int:
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o644)
        return self._descriptor

    def lock(self) -> None:
        """Wait for the lock, in a thread."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def try_lock(self) -> bool:
        """Take the lock if nobody has it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Let go of it; after ``close``, which has let go, nothing happens."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    """Leave the locks to the parent: a child would hold them beyond its death."""
    for lock in _locks:
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)


class _Offer:
    """The file lock, taken in a thread for a coroutine, which has to take it over soon.

    Where the event loop is blocked the lock is let go of, and not kept from everybody meanwhile.

    Attributes:
        taken: whether the coroutine has the lock, once it came; cancelled where it gave up.
        stands: the same.
    """

    def __init__(self, lock: FileLock, give_up: Callable[[bool], None]) -> None:
        self._lock = lock
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._decided = threading.Lock()  # whoever gets it says whether the offer stands
        self._answered = threading.Event()
        self.taken: asyncio.Future[bool] = self._loop.create_future()
        self.stands = False

    def make(self) -> None:
        """Wait for the lock and offer it, in a thread."""
        error: BaseException | None = None
        try:
            self._lock.lock()
        except BaseException as raised:  # noqa: BLE001 - it is the coroutine's
            error = raised
        try:
            self._loop.call_soon_threadsafe(self._answer, error)
        except RuntimeError:  # the loop is closed
            self._give_up(error is None)
            return
        timely = self._answered.wait(OFFER_S)
        if error is None and not timely and self._decided.acquire(blocking=False):
            self._lock.unlock()

    def _answer(self, error: BaseException | None) -> None:
        self.stands = error is None and self._decided.acquire(blocking=False)
        self._answered.set()
        if self.taken.cancelled():
            self._give_up(self.stands)
        elif error is not None:
            self.taken.set_exception(error)
        else:
            self.taken.set_result(self.stands)


class WriteTurns:
    """A fair queue for the write slot of one database file, for coroutines and threads alike."""

    def __init__(self, lock_file: Path) -> None:
        self._path = lock_file
        self._lock = FileLock(lock_file)
        self._threads = DaemonThreads("animica-hooks-turn")
        self._mutex = threading.Lock()
        self._waiting: deque[Future[None]] = deque()
        self._holder: str | None = None
        self._since = 0.0

    def close(self) -> None:
        self._threads.close()
        self._lock.close()

    def held(self) -> tuple[str, float] | None:
        """Return who has the turn and for how many seconds, or None."""
        holder = self._holder
        return None if holder is None else (holder, time.monotonic() - self._since)

    async def take(self, holder: str) -> None:
        """Wait for the turn. Cancelling gives up the place in the queue."""
        waiter = self._enqueue()
        if waiter is not None:
            try:
                await asyncio.wrap_future(waiter)
            except BaseException:
                if not waiter.cancel():
                    self._pass_on()
                raise
        self._begin(holder)
        while not self._try_lock():
            offer = _Offer(self._lock, self._give_up)
            self._threads.submit(offer.make)
            try:
                if await offer.taken:
                    return
            except BaseException:
                if not offer.taken.cancelled():  # or else it is given up when it comes
                    self._give_up(offer.stands)
                raise

    def _try_lock(self) -> bool:
        try:
            return self._lock.try_lock()
        except BaseException:
            self._pass_on()
            raise

    def take_blocking(self, holder: str) -> None:
        """Wait for the turn in a thread."""
        if waiter := self._enqueue():
            waiter.result()
        self._begin(holder)
        try:
            self._lock.lock()
        except BaseException:
            self._pass_on()
            raise

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Have the turn in a thread as another process would, past the queue of this one.

        There the next may be a coroutine of an event loop that is blocked.
        """
        lock = FileLock(self._path)
        try:
            lock.lock()
            yield
        finally:
            lock.close()

    def give(self) -> None:
        """End the turn; from any thread."""
        self._lock.unlock()
        self._pass_on()

    def _give_up(self, locked: bool) -> None:
        if locked:
            self._lock.unlock()
        self._pass_on()

    def _enqueue(self) -> Future[None] | None:
        """Take the turn if nobody has it, else a place in the queue."""
        with self._mutex:
            if self._holder is None:
                self._holder = "?"
                return None
            waiter: Future[None] = Future()
            self._waiting.append(waiter)
            return waiter

    def _begin(self, holder: str) -> None:
        self._since = time.monotonic()
        self._holder = holder

    def _pass_on(self) -> None:
        with self._mutex:
            while self._waiting:
                waiter = self._waiting.popleft()
                if waiter.set_running_or_notify_cancel():
                    self._since = time.monotonic()
                    waiter.set_result(None)
                    return
            self._holder = None
