"""What happened, as frozen data, and who is told.

An observation is data; an observer is a callable that takes one. What is seen of every delivery
is told once a batch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

logger = logging.getLogger("animica_hooks")


class Stored(NamedTuple):
    """A batch of deliveries was committed.

    Attributes:
        receipts: how many were ``new``, ``duplicate``, ``conflict``, ``quarantined``.
        secrets: how many each signing secret verified, by the secret's id.
        no_handler: how many of them no handler takes, by type.
        unkeyed: how many jobs are dead letters at once, for want of a key, by the reason.
    """

    receipts: Mapping[str, int]
    secrets: Mapping[str, int]
    no_handler: Mapping[str, int] = MappingProxyType({})
    unkeyed: Mapping[str, int] = MappingProxyType({})


class Conflicted(NamedTuple):
    """An id came again with another body; the first one counts.

    Attributes:
        stored, received: SHA-256 of both bodies, hex.
    """

    endpoint: str
    event_id: str
    stored: str
    received: str


class Quarantined(NamedTuple):
    """An authentic delivery was not usable as an event and is kept in the quarantine."""

    endpoint: str
    reason: str
    body_hash: str


class Rejected(NamedTuple):
    """A request was answered with an error and nothing was stored.

    Attributes:
        code: the answer's ``code``.
        reason: for ``invalid_signature`` which check failed, else the code.
    """

    code: str
    reason: str


class EndedAttempt(NamedTuple):
    """How one attempt ended.

    Attributes:
        verb: what became of the job: ``complete``, ``retry``, ``bury``, ``cancel``, ``release``.
        seconds: how long the handler ran.
        error: class and place of what it raised, without the message; None where it did not.
        retry_in: seconds until the next attempt, where one is planned.
    """

    handler: str
    event_id: str
    job_id: int
    attempt: int
    verb: str
    seconds: float
    error: str | None = None
    reason: str | None = None
    retry_in: float | None = None


class Attempted(NamedTuple):
    """Attempts ended: all that did at about the same time."""

    attempts: Sequence[EndedAttempt]


class Fenced(NamedTuple):
    """Marks came too late: the jobs' leases had run out and others have them."""

    number: int


class SlowWriter(NamedTuple):
    """Somebody has kept the database's write slot for long, and deliveries wait."""

    holder: str
    seconds: float


Observation: TypeAlias = (
    Stored | Conflicted | Quarantined | Rejected | Attempted | Fenced | SlowWriter
)
Observer: TypeAlias = Callable[[Observation], None]


class Telemetry:
    """Tells observers; one that raises is logged and hurts nothing else."""

    def __init__(self, observers: list[Observer]) -> None:
        self._observers = observers

    def __call__(self, observation: Observation) -> None:
        for observer in self._observers:
            try:
                observer(observation)
            except Exception:
                logger.exception("an observer failed")


class Counters:
    """Counts observations since the start of the process, for ``hooks.stats()``."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, observation: Observation) -> None:
        counts = self.counts
        if isinstance(observation, Attempted):
            for attempt in observation.attempts:
                counts["attempts." + attempt.verb] += 1
        elif isinstance(observation, Stored):
            self._stored(observation)
        elif isinstance(observation, Rejected):
            counts["rejected." + observation.reason] += 1
        elif isinstance(observation, Fenced):
            counts["fenced"] += observation.number
        elif isinstance(observation, SlowWriter):
            counts["slow_writers"] += 1

    def _stored(self, stored: Stored) -> None:
        counts = self.counts
        for receipt, number in stored.receipts.items():
            counts["deliveries." + receipt] += number
        for secret, number in stored.secrets.items():
            counts["verified." + secret] += number
        for what, numbers in (("no_handler", stored.no_handler), ("unkeyed", stored.unkeyed)):
            if numbers:
                counts[what] += sum(numbers.values())
