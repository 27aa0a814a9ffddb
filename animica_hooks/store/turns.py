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
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from animica_hooks.threads import DaemonThreads


class FileLock:
    """An exclusive lock between processes, which a process that dies lets go of.

    Args:
        path: of a file of its own, made when it is first locked: closing any descriptor of the
            database itself would drop SQLite's locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

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


class WriteTurns:
    """A fair queue for the write slot of one database file, for coroutines and threads alike."""

    def __init__(self, lock_file: Path) -> None:
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
        if not waiter.done():
            try:
                await asyncio.wrap_future(waiter)
            except BaseException:
                if not waiter.cancel():
                    self._pass_on()
                raise
        self._begin(holder)
        if self._lock.try_lock():
            return
        locking = self._threads.submit(self._lock.lock)
        try:
            await asyncio.shield(asyncio.wrap_future(locking))
        except BaseException:
            locking.add_done_callback(lambda _: self.give())
            raise

    def take_blocking(self, holder: str) -> None:
        """Wait for the turn in a thread."""
        self._enqueue().result()
        self._begin(holder)
        self._lock.lock()

    def give(self) -> None:
        """End the turn."""
        self._lock.unlock()
        self._pass_on()

    def _enqueue(self) -> Future[None]:
        waiter: Future[None] = Future()
        with self._mutex:
            if self._holder is None:
                self._holder = "?"
                waiter.set_result(None)
            else:
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
