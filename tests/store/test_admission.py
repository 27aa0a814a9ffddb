"""How many deliveries may wait, on databases of several kinds of slowness, in simulated time."""

import random
from collections import deque
from collections.abc import Callable

from animica_hooks.store.admission import Admission
from animica_hooks.store.committer import batch_size

SECONDS = 30.0


class Simulated:
    """A committer before a database that takes as long as it is told.

    Attributes:
        waits: from arrival to the end of the commit, for each delivery that was admitted.
        refused: when each of the others arrived.
    """

    def __init__(self, cost: Callable[[float, int], float]) -> None:
        self.cost = cost
        self.waits: list[float] = []
        self.refused: list[float] = []

    def run(self, arrivals: list[float]) -> None:
        admission, waiting, coming = Admission(), deque[float](), deque(sorted(arrivals))
        noise = random.Random(1)
        now = 0.0
        while coming or waiting:
            if not waiting:
                now = max(now, coming[0])
                waiting.append(coming.popleft())
            taken = [waiting.popleft() for _ in range(batch_size(len(waiting)))]
            seconds = self.cost(now, len(taken)) * noise.uniform(0.8, 1.3)
            while coming and coming[0] <= now + seconds:
                arrived = coming.popleft()
                if len(waiting) < admission.most:
                    waiting.append(arrived)
                else:
                    self.refused.append(arrived)
            now += seconds
            self.waits += [now - arrived for arrived in taken]
            admission.note(len(taken), seconds, len(waiting))


def evenly(rate: float, seconds: float = SECONDS, start: float = 0.0) -> list[float]:
    return [start + n / rate for n in range(int(rate * seconds))]


def test_a_database_that_is_slow_with_each_row_gets_what_it_takes_in_time() -> None:
    """Most of its capacity is used, and what it accepts does not wait for long."""
    simulated = Simulated(lambda now, size: 0.001 + size / 200)
    simulated.run(evenly(2000))
    assert len(simulated.waits) > 0.8 * 200 * SECONDS
    waits = sorted(simulated.waits)
    assert waits[len(waits) * 99 // 100] < 0.8


def test_a_slow_sync_is_not_taken_for_overload() -> None:
    """Deliveries share it, so that more of them cost nothing."""
    simulated = Simulated(lambda now, size: 0.3 + size / 50_000)
    simulated.run(evenly(500))
    assert len(simulated.refused) < 0.03 * 500 * SECONDS  # the noise in its times costs some


def test_a_burst_turns_nobody_away() -> None:
    """Deliveries that came alone before say nothing about many that share a commit."""
    simulated = Simulated(lambda now, size: 0.004 + size / 10_000)
    simulated.run([*evenly(20), *evenly(100_000, 0.02, start=10)])
    assert [] == simulated.refused


def test_one_stall_turns_nobody_away() -> None:
    """A second in which nothing is committed is made up for soon."""
    simulated = Simulated(lambda now, size: 1.0 if 10 < now < 10.5 else 0.002 + size / 20_000)
    simulated.run(evenly(2000))
    assert [] == simulated.refused


def test_overload_that_is_over_turns_nobody_away() -> None:
    """What was learnt of a slow database is forgotten when it is fast again."""
    simulated = Simulated(lambda now, size: size / (200 if now < 10 else 20_000))
    simulated.run(evenly(2000))
    assert simulated.refused
    assert max(simulated.refused) < 11
