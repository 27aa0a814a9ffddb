"""Observations as log lines of ``animica_hooks``: one line each, no payload, no secret."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from animica_hooks.telemetry import (
    Attempted,
    Conflicted,
    EndedAttempt,
    Fenced,
    Observation,
    Quarantined,
    Rejected,
    SlowWriter,
    Stored,
    logger,
)

# What each verb of an attempt's end has made of its job.
_NOW = {
    "complete": "has succeeded",
    "retry": "is tried again",
    "bury": "is dead",
    "cancel": "is cancelled",
    "release": "is given back",
}
LINES_APART_S = 10.0  # of lines that strangers or senders can cause, one of a kind in so long


class Logs:
    """Writes observations to the log. What strangers can cause is rate-limited."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def __call__(self, observation: Observation) -> None:
        match observation:
            case Attempted(attempts):
                _attempted(attempts)
            case Stored(no_handler=types, unkeyed=unkeyed):
                for type in types:
                    self._no_handler(type)
                for reason in unkeyed:
                    self._unkeyed(reason)
            case Rejected(code, reason):
                self._rejected(code, reason)
            case Conflicted(endpoint, event_id, stored, received):
                logger.warning(
                    "event %s came again to %s with another body: kept the first (sha256 %s), "
                    "not the second (%s)",
                    printable(event_id),
                    endpoint,
                    stored,
                    received,
                )
            case Quarantined(endpoint, reason, body_hash):
                logger.warning(
                    "a signed delivery to %s is in the quarantine: %s (sha256 %s); see "
                    "'animica-hooks quarantine list'",
                    endpoint,
                    reason,
                    body_hash,
                )
            case Fenced(number):
                logger.warning("%d marks came too late: other workers have the jobs", number)
            case SlowWriter(holder, seconds):
                logger.warning(
                    "%s has kept the database's write slot for %.1f s, and deliveries wait: "
                    "let it do its slow work before its first write",
                    holder,
                    seconds,
                )

    def _no_handler(self, type: str) -> None:
        said, more = self._may_say("no_handler")
        if said:
            logger.info("no handler takes events of type %s%s", printable(type), more)

    def _unkeyed(self, reason: str) -> None:
        said, more = self._may_say(reason)
        if said:
            logger.warning(
                "a new job is a dead letter, for it has no place in its handler's order: %s%s; see "
                "'animica-hooks dead list'",
                reason,
                more,
            )

    def _rejected(self, code: str, reason: str) -> None:
        said, more = self._may_say(reason)
        if said:
            logger.warning("rejected a request: %s, %s%s", code, reason, more)

    def _may_say(self, what: str) -> tuple[bool, str]:
        """Tell whether a line may be written again, and how many were not since the last one."""
        now = self._clock()
        if now - self._last.get(what, -LINES_APART_S) < LINES_APART_S:
            self._unsaid[what] = self._unsaid.get(what, 0) + 1
            return False, ""
        self._last[what] = now
        unsaid = self._unsaid.pop(what, 0)
        return True, f" (and {unsaid} more since the last such line)" if unsaid else ""


def _attempted(attempts: Sequence[EndedAttempt]) -> None:
    quiet = not logger.isEnabledFor(logging.DEBUG)
    for attempt in attempts:
        if not (quiet and attempt.verb == "complete"):
            _ended(attempt)


def _ended(seen: EndedAttempt) -> None:
    what = "attempt %d of job %d (%s, event %s) ended after %.3f s; the job %s"
    values = (
        seen.attempt,
        seen.job_id,
        seen.handler,
        printable(seen.event_id),
        seen.seconds,
        _NOW[seen.verb] + _when(seen),
    )
    if seen.error is None and seen.verb in ("complete", "retry", "release"):
        logger.debug(what, *values)
        return
    log = logger.error if seen.verb == "bury" else logger.warning
    log(what + ": %s", *values, printable(_cause(seen)))


def _when(seen: EndedAttempt) -> str:
    """Say when the next attempt is, in a unit that is easily read."""
    if seen.verb != "retry" or seen.retry_in is None:
        return ""
    left = round(seen.retry_in, 1)
    for unit, seconds in (("h", 3600), ("min", 60)):
        if left >= seconds:
            return f" in {left / seconds:.1f} {unit}"
    return f" in {left:.1f} s"


def _cause(seen: EndedAttempt) -> str:
    """Say why; a reason that is only the error's class is in its place already."""
    error, reason = seen.error or "", seen.reason or ""
    if reason == error.partition(" ")[0]:
        reason = ""
    return ", ".join(part for part in (error, reason) if part)


def printable(text: str, limit: int = 300) -> str:
    """Return text on one line, with nothing in it that a terminal obeys."""
    return text[:limit].encode("unicode_escape").decode()
