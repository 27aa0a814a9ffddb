"""Run many coroutines in one task, one after the other, as if each had a task of its own.

Making a task for each job costs more than most of the rest of running it. But what one handler
leaves in its context or does to its task must not reach the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any


class InOwnContext:
    """Awaits a coroutine in a copy of the current context; says whether it ever waited.

    Args:
        coroutine: must not raise.
        on_wait: called when it waits for the first time, and others may be run meanwhile.
    """

    __slots__ = ("_context", "_coroutine", "_on_wait")

    def __init__(self, coroutine: Coroutine[Any, Any, None], on_wait: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_wait = on_wait
        self._context: Context = copy_context()

    def __await__(self) -> Generator[Any, Any, bool]:
        run, coroutine = self._context.run, self._coroutine
        try:
            awaited = run(coroutine.send, None)
        except StopIteration:
            return False
        self._on_wait()
        while True:
            try:
                value = yield awaited
            except GeneratorExit:
                run(coroutine.close)
                raise
            except BaseException as error:  # noqa: BLE001 - it is for the coroutine: a cancellation
                resume: Callable[[Any], Any] = coroutine.throw
                value = error
            else:
                resume = coroutine.send
            try:
                awaited = run(resume, value)
            except StopIteration:
                return True
