"""When a failed attempt is tried again: exponential backoff with full jitter.

Full jitter (a delay drawn evenly between nothing and the backoff) spreads the retries of many
jobs that failed together: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from animica_hooks.errors import ConfigurationError

MAX_ATTEMPTS = 10
BASE_S = 5.0
FACTOR = 2.0
MAX_DELAY_S = 3600.0
MAX_AGE_S = 3 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, how soon and for how long a job is tried.

    Attributes:
        max_attempts: failed attempts after which the job is dead; 1 tries once.
        base: the first retry comes after at most this many seconds.
        factor: by what the bound grows with each failed attempt.
        max_delay: seconds that the bound never passes.
        max_age: seconds after the job was created beyond which no attempt is planned.
        jitter: draw the delay evenly from nothing to the bound; off, the bound is the delay.
    """

    max_attempts: int = MAX_ATTEMPTS
    base: float = BASE_S
    factor: float = FACTOR
    max_delay: float = MAX_DELAY_S
    max_age: float = MAX_AGE_S
    jitter: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ConfigurationError(f"max_attempts must be 1 or more, not {self.max_attempts!r}.")
        for name in ("base", "max_delay", "max_age"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ConfigurationError(f"{name} must be seconds, 0 or more, not {value!r}.")
        if not (isinstance(self.factor, int | float) and 1 <= self.factor < math.inf):
            raise ConfigurationError(f"factor must be 1 or more, not {self.factor!r}.")

    def bound(self, failed: int) -> float:
        """Return the longest delay, in seconds, after the ``failed``-th failed attempt."""
        try:
            return min(self.max_delay, self.base * self.factor ** (failed - 1))
        except OverflowError:
            return self.max_delay if self.base else 0.0

    def delay(self, failed: int, rand: float) -> float:
        """Return the delay in seconds; ``rand`` is drawn evenly from [0, 1)."""
        return self.bound(failed) * (rand if self.jitter else 1.0)
