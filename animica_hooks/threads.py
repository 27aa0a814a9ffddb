"""Threads that do not keep the process alive: a hung one must not block the way out."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Runs functions in daemon threads, as many as run at once; idle ones are used again.

    How many that may be is the caller's to bound. (``ThreadPoolExecutor`` joins its threads at
    exit, so that one stuck function keeps the process for ever.)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._mutex = threading.Lock()
        self._started = 0
        self._idle = 0

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run ``function`` in a thread, in a copy of the caller's context."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._mutex:
            if self._idle:
                self._idle -= 1
            else:
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._tasks.put((future, lambda: context.run(function)))
        return future

    def close(self) -> None:
        """Let the idle threads end; busy ones end after their function."""
        with self._mutex:
            for _ in range(self._started):
                self._tasks.put(None)
            self._started = self._idle = 0

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function = task
            if future.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:  # noqa: BLE001 - it is the future's
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del task, future, function
            with self._mutex:
                self._idle += 1


async def to_the_end(future: Future[T]) -> T:
    """Wait for a thread, and even if cancelled not less: it still uses what it uses."""
    waiting = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        while not waiting.done():
            try:
                await asyncio.wait([waiting])
            except asyncio.CancelledError:
                pass  # once more: a timeout and a shutdown may both cancel
        if not waiting.cancelled():
            waiting.exception()  # nobody else will look, and asyncio would complain of that
        raise
