"""What a handler may know of its job."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from animica_hooks.core.job import idempotency_key
from animica_hooks.core.routing import Handler
from animica_hooks.store.records import LeasedJob
from animica_hooks.telemetry import logger

_handler_logger = logger.getChild("handler")


@dataclass(frozen=True, slots=True)
class Job:
    """The job that a handler is run for: ask for it with a parameter ``job: Job``.

    Attributes:
        attempt: number of this attempt, from 1.
        idempotency_key: the same on each attempt; send it along with effects elsewhere.
        replayed_from: id of the job that this one repeats; None unless it is a replay's.
    """

    id: int
    handler: str
    event_id: str
    attempt: int
    idempotency_key: str
    replayed_from: int | None

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines begin with the job."""
        return _JobLogger(_handler_logger, {"job": self})


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        job: Job = self.extra["job"]  # type: ignore[index,assignment]
        return f"[job {job.id}, attempt {job.attempt}, {job.handler}] {msg}", kwargs


def job_context(leased: LeasedJob, handler: Handler) -> Job:
    """Return what the handler of a leased job may know of it."""
    event = leased.event
    return Job(
        id=leased.id,
        handler=handler.name,
        event_id=event.id,
        attempt=leased.attempts + 1,
        idempotency_key=idempotency_key(
            endpoint=event.endpoint,
            event_id=event.id,
            handler=handler.first_name,
            replay_id=leased.keyed_by,
        ),
        replayed_from=leased.replayed_from,
    )
