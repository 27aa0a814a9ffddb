"""Whether, and when, a failed request is sent again: pure decisions.

Rule 1: never earlier than the API asks (``retry-after-ms``, ``retry-after``).
Rule 2: who is asked to wait for longer than ``MAX_WAIT_S`` does not wait: the error says for how
long, and its receiver decides.
Rule 3: ``x-should-retry`` decides over the status.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

MAX_RETRIES = 2
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
MAX_WAIT_S = 60.0
# The share of the backoff that is drawn by lot, so that clients that failed together spread.
JITTER = 0.25

_RETRIED = frozenset({408, 409, 429})
_NUMBER = re.compile(r"\s*([0-9]{1,300}(?:\.[0-9]*)?)\s*", re.ASCII)


def is_retried(status: int, should_retry: str | None) -> bool:
    """Tell whether an answer with this status is asked for again."""
    match should_retry:
        case "true":
            return True
        case "false":
            return False
        case _:
            return status in _RETRIED or status >= 500


def backoff(failed: int, rand: float) -> float:
    """Return the delay in seconds after the ``failed``-th failed attempt; ``rand`` from [0, 1)."""
    longest = min(FIRST_BACKOFF_S * 2.0 ** min(failed - 1, 16), MAX_BACKOFF_S)
    return longest * (1 - JITTER * rand)


def asked_wait(header: Callable[[str], str | None], *, wall: float) -> float | None:
    """Return the seconds that the API asks to wait; None where it asks nothing usable.

    A date is read against the answer's own ``Date``, so that a clock that is off does no harm.

    Args:
        header: returns a header's value by its lower-case name.
        wall: unix seconds now, for a date in an answer without one.
    """
    milliseconds = _number(header("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = header("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    then = _date(value)
    if then is None:
        return None
    sent = _date(header("date") or "")
    return max(0.0, then - (wall if sent is None else sent))


def _number(value: str | None) -> float | None:
    found = _NUMBER.fullmatch(value) if value else None
    return float(found[1]) if found else None


def _date(value: str) -> float | None:
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        then = parsedate_to_datetime(value)
        # HTTP's dates are in UTC, the oldest of their three forms without saying so.
        seconds = (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return seconds if math.isfinite(seconds) else None
