"""Turns at the write slot: fair, never lost, and exclusive between processes."""

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storekit import FULL, PATIENCE_S, until

from animica_hooks.store.turns import WriteTurns

# Takes the turn at the file given, says so, and ends when its input does.
HOLDER = """
import sys
from pathlib import Path
from animica_hooks.store.turns import WriteTurns
turns = WriteTurns(Path(sys.argv[1]))
turns.take_blocking("other process")
print("taken", flush=True)
sys.stdin.read()
"""

# Takes the turn, starts a program that inherits whatever can be inherited, and waits.
PARENT = """
import subprocess, sys, time
from pathlib import Path
from animica_hooks.store.turns import WriteTurns
WriteTurns(Path(sys.argv[1])).take_blocking("parent")
child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""


# The same with a child that is a copy of it.
FORKS = """
import os, sys, time
from pathlib import Path
from animica_hooks.store.turns import WriteTurns
turns = WriteTurns(Path(sys.argv[1]))
turns.take_blocking("parent")
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "turns"


@pytest.fixture
def turns(lock_file: Path) -> Iterator[WriteTurns]:
    turns = WriteTurns(lock_file)
    yield turns
    turns.close()


@pytest.fixture
def holder(lock_file: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which has the turn."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "taken\n" == process.stdout.readline()
        yield process
        process.kill()


async def finish(*tasks: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*tasks)


async def is_free(turns: WriteTurns) -> bool:
    """Tell whether the turn can be had, by having it."""
    async with asyncio.timeout(PATIENCE_S):
        await turns.take("prover")
    turns.give()
    return turns.held() is None


def waiting(turns: WriteTurns) -> int:
    return len(turns._waiting)


async def test_turns_come_in_the_order_of_asking(turns: WriteTurns) -> None:
    """Coroutines and threads have their turns in the order in which they asked, all mixed."""
    order: list[int] = []

    async def coroutine(n: int) -> None:
        await turns.take(f"coroutine {n}")
        order.append(n)
        turns.give()

    def thread(n: int) -> None:
        turns.take_blocking(f"thread {n}")
        order.append(n)
        turns.give()

    await turns.take("first")
    with ThreadPoolExecutor(20) as pool:
        everybody: list[asyncio.Future[None]] = []
        for n in range(30):
            if n % 3 == 1:
                everybody.append(asyncio.wrap_future(pool.submit(thread, n)))
            else:
                everybody.append(asyncio.ensure_future(coroutine(n)))
            await until(lambda n=n: waiting(turns) == n + 1)  # type: ignore[misc]
        turns.give()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*everybody)

    assert list(range(30)) == order
    assert turns.held() is None


async def test_the_holder_is_known(turns: WriteTurns) -> None:
    """Who has the turn can be named, with the time that it has lasted."""
    assert turns.held() is None
    await turns.take("inbox")
    held = turns.held()
    assert held is not None
    assert "inbox" == held[0]
    assert 0 <= held[1] < PATIENCE_S
    turns.give()
    assert turns.held() is None


async def test_giving_up_while_waiting_passes_nobody_over(turns: WriteTurns) -> None:
    """Whoever is cancelled in the queue leaves it, and the next in line has the turn."""
    await turns.take("first")
    gone = [asyncio.ensure_future(turns.take("gone")) for _ in range(3)]
    stays = asyncio.ensure_future(turns.take("stays"))
    await until(lambda: waiting(turns) == 4)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    turns.give()

    await finish(stays)
    turns.give()
    assert await is_free(turns)


async def test_cancelled_in_the_moment_of_being_granted(turns: WriteTurns) -> None:
    """A turn that is granted to somebody who is cancelled just then goes to the next."""
    await turns.take("first")
    gone = asyncio.ensure_future(turns.take("gone"))
    stays = asyncio.ensure_future(turns.take("stays"))
    await until(lambda: waiting(turns) == 2)
    turns.give()  # granted, but the task has not run since
    gone.cancel()
    [ended] = await asyncio.gather(gone, return_exceptions=True)

    assert isinstance(ended, asyncio.CancelledError)
    await finish(stays)
    turns.give()
    assert await is_free(turns)


async def test_cancelled_while_another_process_has_the_turn(
    turns: WriteTurns, holder: "subprocess.Popen[str]"
) -> None:
    """Giving up while a thread waits for the other process gives the turn up, once it comes."""
    gone = asyncio.ensure_future(turns.take("gone"))
    await until(lambda: turns.held() is not None)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    stays = asyncio.ensure_future(turns.take("stays"))
    holder.kill()

    await finish(stays)
    turns.give()
    assert await is_free(turns)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["coroutine", "thread", "cancel", "cancel newest", "yield"]),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(
    max_examples=3000 if FULL else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_no_history_of_cancellations_loses_the_turn(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whoever asks, gives up and is granted in whatever order: one at a time, and never nobody."""
    lock_file = tmp_path_factory.getbasetemp() / "history-turns"
    assert 1 == asyncio.run(play(lock_file, steps))


class Players:
    """Coroutines and threads that want the turn, and how many ever had it at once."""

    def __init__(self, turns: WriteTurns, pool: ThreadPoolExecutor) -> None:
        self.turns = turns
        self.pool = pool
        self.coroutines: list[asyncio.Task[None]] = []
        self.threads: list[asyncio.Future[None]] = []
        self.mutex = threading.Lock()
        self.inside = self.most = 0

    def enter(self) -> None:
        with self.mutex:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self.mutex:
            self.inside -= 1

    async def coroutine(self, pauses: int) -> None:
        await self.turns.take("coroutine")
        self.enter()
        try:
            await pause(pauses)
        finally:
            self.leave()
            self.turns.give()

    def thread(self) -> None:
        self.turns.take_blocking("thread")
        self.enter()
        self.leave()
        self.turns.give()

    async def step(self, step: str, number: int) -> None:
        if step == "coroutine":
            self.coroutines.append(asyncio.create_task(self.coroutine(number)))
        elif step == "thread":
            self.threads.append(asyncio.wrap_future(self.pool.submit(self.thread)))
        elif step == "cancel" and number < len(self.coroutines):
            self.coroutines[number].cancel()
        elif step == "cancel newest" and self.coroutines:
            self.coroutines[-1].cancel()
        else:
            await pause(number)


async def pause(rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


async def play(lock_file: Path, steps: list[tuple[str, int]]) -> int:
    """Let the steps happen; return how many ever had the turn at once."""
    turns = WriteTurns(lock_file)
    with ThreadPoolExecutor(50) as pool:
        players = Players(turns, pool)
        for step in steps:
            await players.step(*step)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*players.coroutines, *players.threads, return_exceptions=True)
            await turns.take("prover")
        turns.give()
    assert turns.held() is None
    turns.close()
    return max(1, players.most)


async def test_cancellations_under_contention_lose_no_turn(
    turns: WriteTurns, lock_file: Path
) -> None:
    """With threads, coroutines and another queue on the same file, all cancelled at random."""
    rand = random.Random(7)
    elsewhere = WriteTurns(lock_file)  # has a descriptor of its own, as another process
    inside: set[str] = set()
    had = 0

    def work(queue: WriteTurns, name: str) -> None:
        queue.take_blocking(name)
        enter(name)
        inside.discard(name)
        queue.give()

    def enter(name: str) -> None:
        nonlocal had
        inside.add(name)
        assert {name} == inside
        had += 1

    async def write(queue: WriteTurns, name: str) -> None:
        await queue.take(name)
        enter(name)
        try:
            await asyncio.sleep(rand.choice([0, 0, 0.0002]))
        finally:
            inside.discard(name)
            queue.give()

    with ThreadPoolExecutor(8) as pool:
        rounds: list[asyncio.Future[None]] = []
        for n in range(1500 if FULL else 300):
            queue = rand.choice([turns, elsewhere])
            if rand.random() < 0.2:
                rounds.append(asyncio.wrap_future(pool.submit(work, queue, f"{n}")))
                continue
            task = asyncio.create_task(write(queue, f"{n}"))
            rounds.append(task)
            if rand.random() < 0.5:
                asyncio.get_running_loop().call_later(rand.random() * 0.01, task.cancel)
            await asyncio.sleep(rand.choice([0, 0, 0.0005]))
        async with asyncio.timeout(60):
            ended = await asyncio.gather(*rounds, return_exceptions=True)

    assert [] == [e for e in ended if e is not None and not isinstance(e, asyncio.CancelledError)]
    assert had > 0
    assert await is_free(turns)
    assert await is_free(elsewhere)
    elsewhere.close()


# Between processes


async def test_two_processes_exclude_each_other(
    turns: WriteTurns, holder: "subprocess.Popen[str]"
) -> None:
    """While another process has the turn nobody here does, and then the one who asked."""
    taking = asyncio.ensure_future(turns.take("here"))
    done, _ = await asyncio.wait([taking], timeout=0.3)
    assert set() == done

    assert holder.stdin is not None
    holder.stdin.close()
    await finish(taking)
    turns.give()


async def test_a_process_that_is_killed_frees_the_turn(
    turns: WriteTurns, holder: "subprocess.Popen[str]"
) -> None:
    """No lock outlives kill -9: the waiting thread here has its turn at once."""
    thread = ThreadPoolExecutor(1)
    taking = thread.submit(turns.take_blocking, "here")
    await until(lambda: turns.held() is not None)
    holder.kill()

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wrap_future(taking)
    turns.give()
    thread.shutdown()


@pytest.mark.parametrize("program", [PARENT, FORKS], ids=["starts", "forks"])
async def test_a_program_started_by_a_killed_process_does_not_keep_the_turn(
    program: str, turns: WriteTurns, lock_file: Path
) -> None:
    """What a handler starts does not inherit the lock, and can not keep it from everybody."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock_file)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        try:
            assert await is_free(turns)
            os.kill(child, 0)  # it is still there
        finally:
            os.kill(child, signal.SIGKILL)


async def test_a_lock_that_fails_keeps_nobody_from_the_next_turn(
    turns: WriteTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the file system is raised to whose turn it was, and the turn is passed on."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    with monkeypatch.context() as failing:
        failing.setattr("fcntl.flock", fail)
        with pytest.raises(OSError, match="no locks"):
            await turns.take("coroutine")
        with pytest.raises(OSError, match="no locks"):
            await asyncio.to_thread(turns.take_blocking, "thread")
    assert await is_free(turns)
