"""What an answer's headers say of the rate limits, in OpenAI's and Anthropic's spelling.

https://platform.openai.com/docs/guides/rate-limits and
https://docs.anthropic.com/en/api/rate-limits
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from animica_hooks.sdk.retrying import asked_wait

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+", re.ASCII)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """The limits as of one answer; None is what it did not say.

    Attributes:
        limit_requests: requests in a period.
        limit_tokens: tokens in a period.
        remaining_requests: requests left in this period.
        remaining_tokens: tokens left in this period.
        reset_requests: when the period of requests ends, as the API said it.
        reset_tokens: when the period of tokens ends, as the API said it.
        reset_requests_s: seconds from then to the end of the period of requests.
        reset_tokens_s: seconds from then to the end of the period of tokens.
        retry_after: seconds to wait before the next request.
    """

    limit_requests: int | None = None
    limit_tokens: int | None = None
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    reset_requests: str | None = None
    reset_tokens: str | None = None
    reset_requests_s: float | None = None
    reset_tokens_s: float | None = None
    retry_after: float | None = None


def read(headers: Mapping[str, str]) -> RateLimit:
    """Return what the headers say; never raises."""

    def find(what: str, of: str) -> str | None:
        for name in (f"x-ratelimit-{what}-{of}", f"anthropic-ratelimit-{of}-{what}"):
            if name in headers:
                return headers[name]
        # A server that limits requests only need not say of what.
        return headers.get(f"x-ratelimit-{what}") if of == "requests" else None

    reset_requests, reset_tokens = find("reset", "requests"), find("reset", "tokens")
    return RateLimit(
        limit_requests=_count(find("limit", "requests")),
        limit_tokens=_count(find("limit", "tokens")),
        remaining_requests=_count(find("remaining", "requests")),
        remaining_tokens=_count(find("remaining", "tokens")),
        reset_requests=reset_requests,
        reset_tokens=reset_tokens,
        reset_requests_s=_seconds(reset_requests),
        reset_tokens_s=_seconds(reset_tokens),
        retry_after=asked_wait(headers.get, wall=time.time()),
    )


def _count(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 16 else None


def _seconds(value: str | None) -> float | None:
    """Read ``6m0s``, ``20ms``, plain seconds, or a date in the future."""
    if value is None:
        return None
    if _DURATION.fullmatch(value):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    try:
        seconds = float(value)
    except ValueError:
        return _until(value)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _until(value: str) -> float | None:
    try:
        then = datetime.fromisoformat(value)
    except ValueError:
        return None
    aware = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
