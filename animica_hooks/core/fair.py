"""How what a worker has room for is divided among handlers whose jobs are due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Claimant(NamedTuple):
    """A handler that jobs are to be claimed for.

    Attributes:
        concurrency: attempts at once, in all processes; None where nothing limits it.
        rate: attempts begun a second, in all processes; None where nothing limits it.
        most: jobs that this process has room for; None where it is all there is.
    """

    handler_id: int
    priority: int = 0
    concurrency: int | None = None
    rate: float | None = None
    most: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.concurrency is not None or self.rate is not None


def share(left: int, waiting: Sequence[Claimant]) -> int:
    """Return how many jobs the first of ``waiting`` may claim of the ``left``.

    Those of its priority get even shares, which it may leave to them; each of a lower priority gets
    one at least, so that nobody starves.

    Args:
        waiting: those that have not claimed yet, the highest priority first.
    """
    peers = sum(claimant.priority == waiting[0].priority for claimant in waiting)
    kept = len(waiting) - peers
    fair = max(min(left, 1), -(-(left - kept) // peers))
    most = waiting[0].most
    return fair if most is None else min(fair, most)


def granted(
    claimant: Claimant, most: int, *, leased: int, tokens: float | None, tokens_age: int
) -> tuple[int, float]:
    """Return how many jobs a limited handler may begin now, and the tokens that it has.

    Args:
        leased: its jobs that run or are about to, in all processes.
        tokens: at the last claim, ``tokens_age`` microseconds ago; None at the first.
    """
    if claimant.concurrency is not None:
        most = min(most, claimant.concurrency - leased)
    if claimant.rate is None:
        return max(most, 0), 0.0
    burst = max(1.0, claimant.rate)
    earned = max(tokens_age, 0) / 1_000_000 * claimant.rate
    now = burst if tokens is None else min(burst, tokens + earned)
    return max(min(most, int(now + 1e-9)), 0), now
