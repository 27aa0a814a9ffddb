"""The heartbeat: a thread that lives through whatever happens to it, and ends in time."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence

import pytest
from dispatchkit import until

from animica_hooks.core.outcome import SECOND
from animica_hooks.dispatch.heartbeat import Heartbeat
from animica_hooks.errors import StoreUnavailable

HELD = [(1, 1)]


class Leases:
    """Stands in for the store and for those who hold the jobs."""

    def __init__(self, lease_s: float) -> None:
        self.lease = int(lease_s * SECOND)
        self.renewed: list[float] = []
        self.blocked: list[bool] = []
        self.fails: Callable[[], None] = lambda: None

    def leases(self, *, blocked: bool = False) -> list[tuple[int, int]]:
        self.blocked.append(blocked)
        return HELD

    def renew(self, leases: Sequence[tuple[int, int]]) -> None:
        assert leases == HELD
        self.renewed.append(time.monotonic())
        self.fails()


async def test_it_beats_while_the_loop_is_blocked() -> None:
    """Leases are prolonged meanwhile, and those who hold them are told that it is blocked."""
    leases = Leases(0.15)
    heartbeat = Heartbeat(leases, leases)
    heartbeat.start()
    await asyncio.sleep(0.1)
    assert [False] * len(leases.blocked) == leases.blocked
    time.sleep(0.6)  # noqa: ASYNC251 - it is what this is about
    assert len(leases.renewed) > 4
    assert leases.blocked[-1]
    await heartbeat.stop()
    beats = len(leases.renewed)
    await asyncio.sleep(0.2)
    assert beats == len(leases.renewed)


@pytest.mark.parametrize("error", [StoreUnavailable("gone."), ValueError("bug"), SystemExit(1)])
async def test_it_lives_through_failures(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is raised is logged, and it beats again, sooner than it would have."""
    leases = Leases(3.0)

    def fail() -> None:
        if len(leases.renewed) < 3:
            raise error

    leases.fails = fail
    heartbeat = Heartbeat(leases, leases)
    heartbeat.start()
    with caplog.at_level(logging.WARNING, "animica_hooks"):
        heartbeat.wake()
        await until(lambda: len(leases.renewed) == 3)
    assert leases.renewed[2] - leases.renewed[0] < 1.0  # of a lease of 3 s
    assert 2 == caplog.text.count("leases could not be prolonged")
    await heartbeat.stop()


async def test_a_database_that_does_not_answer_does_not_keep_the_process() -> None:
    """It is left behind at a shutdown."""
    leases = Leases(0.1)
    release = threading.Event()
    leases.fails = lambda: (release.wait(), None)[1]
    heartbeat = Heartbeat(leases, leases)
    heartbeat.start()
    await until(lambda: bool(leases.renewed))
    async with asyncio.timeout(5):
        await heartbeat.stop()
    release.set()
