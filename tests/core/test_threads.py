"""Threads for plain functions: as many as run at once, and none that keeps the process."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from animica_hooks.threads import DaemonThread, DaemonThreads, to_the_end

PATIENCE_S = 30.0
NAME = "animica-hooks-tested"


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    """Threads that are gone when the test is over."""
    threads = DaemonThreads(NAME)
    yield threads
    threads.close()
    eventually(lambda: ours() == [])


def ours() -> list[threading.Thread]:
    """The threads of the tests."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.001)


def run_at_once(threads: DaemonThreads, number: int) -> set[int]:
    """Run functions that end only when all of them have begun; return their threads."""
    together = threading.Barrier(number)

    def function() -> int:
        together.wait(PATIENCE_S)
        return threading.get_ident()

    running = [threads.submit(function) for _ in range(number)]
    return {future.result(PATIENCE_S) for future in running}


def test_functions_run_at_once_each_in_a_thread(threads: DaemonThreads) -> None:
    """So many functions, so many threads: none waits for another."""
    idents = run_at_once(threads, 5)

    assert len(idents) == 5
    assert threading.get_ident() not in idents


def test_idle_threads_are_used_again(threads: DaemonThreads) -> None:
    """Once idle, the same threads run what comes next, and no more are started."""
    first = run_at_once(threads, 3)
    eventually(lambda: threads._idle == 3)

    again = run_at_once(threads, 3)

    assert first == again
    assert len(ours()) == 3


def test_a_sequence_needs_few_threads(threads: DaemonThreads) -> None:
    """Functions that run one after another do not each leave a thread behind."""
    for _ in range(300):
        threads.submit(int).result(PATIENCE_S)
        eventually(lambda: threads._idle == len(ours()))

    assert len(ours()) == 1


class Unforeseen(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), Unforeseen(), StopIteration()]
)
def test_what_a_function_raises_is_told(threads: DaemonThreads, error: BaseException) -> None:
    """Whatever a function raises reaches its future, and its thread goes on."""

    def function() -> None:
        raise error

    failed = threads.submit(function)

    assert error is failed.exception(PATIENCE_S)
    eventually(lambda: threads._idle == 1)
    assert threads.submit(lambda: "next").result(PATIENCE_S) == "next"
    assert len(ours()) == 1


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def test_a_function_has_a_copy_of_the_callers_context(threads: DaemonThreads) -> None:
    """What the caller has set is seen; what the function sets is seen by nobody else."""

    def function() -> str:
        before = VARIABLE.get()
        VARIABLE.set("by the function")
        return before

    token = VARIABLE.set("by the caller")
    seen = [threads.submit(function).result(PATIENCE_S) for _ in range(3)]
    VARIABLE.reset(token)
    seen.append(threads.submit(function).result(PATIENCE_S))

    assert seen == ["by the caller"] * 3 + ["unset"]
    assert VARIABLE.get() == "unset"


def test_a_cancelled_function_does_not_run(threads: DaemonThreads) -> None:
    """What is cancelled before its thread takes it is left out, and the thread goes on."""
    ran: list[Future[None]] = []

    def cancelled_in_time() -> bool:
        future = threads.submit(lambda: ran.append(future))
        return future.cancel() and future not in ran

    eventually(cancelled_in_time)
    eventually(lambda: threads._idle == len(ours()))

    assert all(not future.cancelled() for future in ran)
    assert threads.submit(lambda: "next").result(PATIENCE_S) == "next"


def test_closing_ends_idle_threads_at_once_and_busy_ones_later() -> None:
    """After close no thread stays longer than its function."""
    threads = DaemonThreads(NAME)
    run_at_once(threads, 2)
    entered, release = threading.Event(), threading.Event()

    def busy() -> str:
        entered.set()
        release.wait(PATIENCE_S)
        return "done"

    future = threads.submit(busy)
    entered.wait(PATIENCE_S)
    threads.close()

    eventually(lambda: len(ours()) == 1)
    assert not future.done()
    release.set()
    assert future.result(PATIENCE_S) == "done"
    eventually(lambda: ours() == [])


def test_threads_have_names_and_are_daemons(threads: DaemonThreads) -> None:
    """In a dump of all threads one sees whose they are."""
    run_at_once(threads, 2)

    assert sorted(thread.name for thread in ours()) == [f"{NAME}-1", f"{NAME}-2"]
    assert all(thread.daemon for thread in ours())


def test_a_hung_function_does_not_keep_the_process() -> None:
    """A process ends though a function never does, and though nothing was closed."""
    source = (
        "import threading\n"
        "from animica_hooks.threads import DaemonThreads\n"
        "entered = threading.Event()\n"
        "hang = lambda: (entered.set(), threading.Event().wait())\n"
        "DaemonThreads('hung').submit(hang)\n"
        "entered.wait()\n"
        "print('out')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "")


def test_results_are_not_kept(threads: DaemonThreads) -> None:
    """An idle thread holds on to nothing of what it ran."""

    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    threads.submit(lambda held=big: None).result(PATIENCE_S)
    del big

    eventually(lambda: gone() is None)


# Waiting for one


async def test_waiting_returns_or_raises_what_the_function_does(threads: DaemonThreads) -> None:
    """Who waits gets the result, or the exception."""
    assert await to_the_end(threads.submit(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        await to_the_end(threads.submit(lambda: 1 // 0))


async def test_waiting_for_what_was_cancelled_is_over() -> None:
    """What never began needs no waiting for."""
    future: Future[None] = Future()
    future.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(to_the_end(future), PATIENCE_S)


@pytest.mark.parametrize("cancellations", [1, 2, 5])
@pytest.mark.parametrize("ending", ["result", "error"])
async def test_waiting_lasts_to_the_end_though_cancelled(
    threads: DaemonThreads, cancellations: int, ending: str
) -> None:
    """However often it is cancelled, the wait is over only when the function is."""
    entered, release = threading.Event(), threading.Event()

    def function() -> None:
        entered.set()
        release.wait(PATIENCE_S)
        if ending == "error":
            raise ValueError("too late for anybody to care")

    future = threads.submit(function)
    waiting = asyncio.ensure_future(to_the_end(future))
    await asyncio.to_thread(entered.wait, PATIENCE_S)

    for _ in range(cancellations):
        waiting.cancel()
        for _ in range(10):  # as many turns of the loop as it could take to get away
            await asyncio.sleep(0)
        assert not waiting.done()

    release.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, PATIENCE_S)
    assert future.done()


async def test_one_thread_runs_what_it_is_given_in_order() -> None:
    """Functions run one after the other, results and errors come back, and it ends when closed."""
    thread = DaemonThread(NAME)
    ran: list[int] = []

    def fail() -> None:
        raise ValueError("a test")

    numbers = [thread.run(lambda n=n: ran.append(n) or n) for n in range(5)]  # type: ignore[misc]
    assert [0, 1, 2, 3, 4] == await asyncio.gather(*numbers)
    with pytest.raises(ValueError, match="a test"):
        await thread.run(fail)
    assert [0, 1, 2, 3, 4] == ran

    thread.close()
    eventually(lambda: ours() == [])


async def test_a_cancelled_wait_for_the_thread_lasts_to_the_end() -> None:
    """Cancelling does not leave a function behind that still uses what the caller would close."""
    thread = DaemonThread(NAME)
    begun, let_go = threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        let_go.wait(PATIENCE_S)

    running = asyncio.create_task(thread.run(function))
    assert await asyncio.to_thread(begun.wait, PATIENCE_S)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    thread.close()
    eventually(lambda: ours() == [])
