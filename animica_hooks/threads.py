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


class DaemonThread:
    """Runs functions one after the other in one daemon thread, for the event loop that made it.

    A function costs the loop less than one of ``DaemonThreads``: what a thread does in Python it
    does at the loop's expense, and here that is next to nothing.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run ``function`` and wait for it, even if cancelled not less."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            worker = threading.Thread(target=self._work, args=(self._loop,), daemon=True)
            worker.name = self._name
            worker.start()
        call = _Call(function, self._loop)
        self._calls.put(call)
        try:
            # Not shielded, which would cost another round of the loop.
            result: T = await call.ended
        except asyncio.CancelledError:
            await call.wait_if_running()
            raise
        return result

    def close(self) -> None:
        """Let the thread end, after the function that it is busy with."""
        self._calls.put(None)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (call := self._calls.get()) is not None:
            result = error = None
            try:
                result = call.function()
            except BaseException as raised:  # noqa: BLE001 - it is the caller's
                error = raised
            try:
                loop.call_soon_threadsafe(call.end, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del call, result, error


class _Call:
    """A function in a ``DaemonThread``, and who waits for it."""

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.ended: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._running = True

    def end(self, result: object, error: BaseException | None) -> None:
        self._running = False
        if self.ended.done():
            return  # cancelled, and nobody waits
        if error is None:
            self.ended.set_result(result)
        else:
            self.ended.set_exception(error)

    async def wait_if_running(self) -> None:
        """Wait for the end once more, after a cancellation; further ones change nothing."""
        while self._running:
            self.ended = self._loop.create_future()
            try:
                await asyncio.wait([self.ended])
            except asyncio.CancelledError:
                pass  # a timeout and a shutdown may both cancel
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()  # nobody else will look, and asyncio would complain of that
