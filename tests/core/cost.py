"""How the cost of a function grows with its input, whatever the machine's speed."""

import time
from collections.abc import Callable
from typing import Any

TIMES_LARGER = 8
# 8 times the input costs a linear function 8 times the CPU, a quadratic one 64 times.
STILL_LINEAR = 24


def growth(function: Callable[[Any], object], make: Callable[[int], Any], size: int) -> float:
    """Return how many times dearer an input is that is ``TIMES_LARGER``."""
    small, large = make(size), make(size * TIMES_LARGER)
    return _cpu(function, large) / _cpu(function, small)


def _cpu(function: Callable[[Any], object], argument: Any) -> float:
    """CPU nanoseconds of one call: the best of several."""

    def once() -> int:
        before = time.thread_time_ns()
        function(argument)
        return time.thread_time_ns() - before

    return max(1, min(once() for _ in range(5)))
