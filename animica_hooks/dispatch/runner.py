"""Run one handler once, and say how that ended.

Rule 1: whatever a handler raises, ``SystemExit`` and its own ``CancelledError`` among it, ends
        only its attempt.
Rule 2: what is written through ``session`` commits with the mark that the job is done. A handler
        that asked for a session and wrote nothing is marked like any other.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import msgspec

from animica_hooks.core.binding import data_converter
from animica_hooks.core.fair import Claimant
from animica_hooks.core.order import Line
from animica_hooks.core.outcome import (
    COMPLETED,
    Discard,
    Failed,
    Outcome,
    Released,
    RetryLater,
    Transition,
)
from animica_hooks.core.retry import RetryPolicy
from animica_hooks.core.routing import Handler
from animica_hooks.core.scrub import scrub
from animica_hooks.dispatch.context import job_context
from animica_hooks.errors import CommitUnknown, EventMisfit, HandlerError, MalformedEvent
from animica_hooks.store.base import Store
from animica_hooks.store.records import Failure, LeasedJob, Mark, line_of
from animica_hooks.threads import DaemonThreads

MAX_NAME_CHARS = 200
MAX_MESSAGE_CHARS = 1000
MAX_TRACEBACK_CHARS = 8000
_OURS = str(Path(__file__).parent.parent) + os.sep  # the package's folder

Convert: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A handler with all that was left to its app filled in.

    Attributes:
        is_plain: see ``Handler.is_plain``.
        convert: makes ``event.data`` what the handler asks for; None where it takes it as it is.
    """

    name: str
    is_async: bool
    has_session: bool
    handler: Handler
    retry: RetryPolicy
    timeout: float
    is_plain: bool
    convert: Convert | None

    def claimant(self, handler_id: int) -> Claimant:
        handler = self.handler
        return Claimant(handler_id, handler.priority, handler.concurrency, handler.rate)

    def line(self, handler_id: int, key: str | None) -> Line | None:
        """Return the line of a job with a key."""
        return None if key is None else line_of(handler_id, self.handler, key)


def prepare(handler: Handler, *, retry: RetryPolicy, timeout: float) -> Prepared:
    """Fill in an app's defaults.

    Raises:
        ConfigurationError: the type in the handler's ``Event[T]`` can not be used.
    """
    convert = data_converter(handler.function, handler.binding.event, handler.name)
    return Prepared(
        name=handler.name,
        is_async=handler.binding.is_async,
        has_session=handler.binding.session is not None,
        handler=handler,
        retry=handler.retry or retry,
        timeout=handler.timeout or timeout,
        is_plain=handler.is_plain,
        convert=convert,
    )


class Attempt(msgspec.Struct, eq=False):
    """One try of a job, under way.

    Attributes:
        began: by the loop's clock.
        returned: the handler has returned; what is left is its commit, which is not broken off.
        timed_out, broken_off: why its task was cancelled: by the timeout, by a shutdown.
        over: what became of the job is decided.
    """

    prepared: Prepared
    job: LeasedJob
    began: float
    task: asyncio.Task[None] | None = None
    returned: bool = False
    timed_out: bool = False
    broken_off: bool = False
    over: bool = False
    timer: asyncio.TimerHandle | None = None

    @property
    def number(self) -> int:
        return self.job.attempts + 1


class Runner:
    """Calls handlers that need more than a call: a session of the store, or a thread.

    Both ways return whether the job is marked done already, together with what the handler wrote,
    and raise what the handler raises, or ``LeaseLost``.
    """

    def __init__(self, store: Store, threads: DaemonThreads) -> None:
        self._store = store
        self._threads = threads

    async def run_in_session(self, attempt: Attempt) -> bool:
        async with self._store.session(attempt.prepared.name) as (session, unit):
            await call(attempt, session)
            attempt.returned = True
            return await session.run_sync(unit.complete, _done(attempt), self._store.now())

    def run_in_thread(self, attempt: Attempt) -> Future[bool]:
        return self._threads.submit(lambda: self._run_sync(attempt))

    def _run_sync(self, attempt: Attempt) -> bool:
        if not attempt.prepared.has_session:
            call_sync(attempt, None)
            return False
        with self._store.sync_session(attempt.prepared.name) as (session, unit):
            call_sync(attempt, session)
            return unit.complete(session, _done(attempt), self._store.now())


def call(attempt: Attempt, session: object) -> Awaitable[object]:
    """Call an ``async def`` handler with what it asks for; its work begins when it is awaited."""
    called: Awaitable[object] = attempt.prepared.handler.function(**_arguments(attempt, session))
    return called


def call_sync(attempt: Attempt, session: object) -> None:
    """Call a plain ``def`` handler with what it asks for."""
    try:
        result = attempt.prepared.handler.function(**_arguments(attempt, session))
    except StopIteration as error:  # no future can carry it; coroutines turn it into the same
        raise RuntimeError("a plain def raised StopIteration") from error
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise HandlerError("a plain def returned a coroutine: make the handler an async def.")


def _done(attempt: Attempt) -> Mark:
    return end_of(attempt.job, attempt.prepared, COMPLETED)


def end_of(
    job: LeasedJob, prepared: Prepared, transition: Transition, failure: Failure | None = None
) -> Mark:
    """Return the mark of a job's attempt that ended."""
    key = job.ordering_key
    line = None if key is None else prepared.line(job.handler_id, key)
    frees = not prepared.is_plain
    return Mark(job.id, job.fence, job.attempts + 1, transition, failure, line, frees)


def _arguments(attempt: Attempt, session: object) -> dict[str, Any]:
    prepared, job = attempt.prepared, attempt.job
    binding, event = prepared.handler.binding, job.event
    if prepared.convert is not None:
        event = event.with_data(prepared.convert(event.data))
    arguments: dict[str, Any] = {binding.event: event}
    if binding.session is not None:
        arguments[binding.session] = session
    if binding.job is not None:
        arguments[binding.job] = job_context(job, prepared.handler)
    return arguments


def outcome_of(error: BaseException) -> Outcome:
    """Turn what a handler raised into the outcome of its attempt."""
    if isinstance(error, RetryLater | Discard):
        return error
    if isinstance(error, CommitUnknown):
        return Released()
    if isinstance(error, EventMisfit):
        return Failed(f"EventMisfit: {error.path}", retry=False)
    name = scrub(type(error).__name__, MAX_NAME_CHARS)
    return Failed(name, retry=not isinstance(error, MalformedEvent))


def failure_of(error: BaseException) -> Failure:
    """Describe what a handler raised, for those who may read the database."""
    message = _described(error, str, MAX_MESSAGE_CHARS)
    lines = _described(error, _traceback, MAX_TRACEBACK_CHARS)
    if lines is None:
        lines = _described(error, _frames, MAX_TRACEBACK_CHARS)
    return Failure(
        error=scrub(type(error).__qualname__, MAX_NAME_CHARS),
        message="(its message could not be made)" if message is None else message,
        traceback="(its traceback could not be made)" if lines is None else lines,
    )


def _described(
    error: BaseException, describe: Callable[[BaseException], str], limit: int
) -> str | None:
    """Return what ``describe`` makes of an error, scrubbed; None where it raises."""
    try:
        return scrub(describe(error), limit)
    except BaseException:  # noqa: BLE001 - whatever an error defines itself may raise anything
        return None


def _traceback(error: BaseException) -> str:
    """Return an error's traceback, its notes and what caused it."""
    frames = _from_the_handler(error)
    described = traceback.TracebackException(type(error), error, frames, limit=-20, compact=True)
    return "".join(described.format())


def _frames(error: BaseException) -> str:
    return "".join(traceback.format_tb(_from_the_handler(error), limit=-20))


def _from_the_handler(error: BaseException) -> TracebackType | None:
    """Leave out our own frames before the handler's; with only ours, leave all.

    Those of a misfit, which is found before the handler begins, tell nothing: its message is all.
    """
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OURS):
        found = found.tb_next
    return found if found or isinstance(error, EventMisfit) else error.__traceback__


def place_of(error: BaseException, handler: Callable[..., Any]) -> str:
    """Name an error by class, file and line: enough to find it, and nothing of its message.

    Args:
        handler: the place of what was raised by us, because of it.
    """
    name = type(error).__qualname__
    frames = traceback.extract_tb(error.__traceback__)
    if any(not frame.filename.startswith(_OURS) for frame in frames):
        return f"{name} at {frames[-1].filename}:{frames[-1].lineno}"
    code = getattr(inspect.unwrap(handler), "__code__", None)
    return name if code is None else f"{name} at {code.co_filename}:{code.co_firstlineno}"
