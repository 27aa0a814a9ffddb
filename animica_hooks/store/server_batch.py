"""What a batch means, for the stores of database servers: no connection is needed for it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, TypeAlias

from animica_hooks.core.event import Event, hash_body
from animica_hooks.core.order import parks
from animica_hooks.core.outcome import from_micros
from animica_hooks.store.records import (
    Batch,
    Committed,
    LeasedJob,
    NewEvent,
    NewJob,
    NewQuarantined,
)

EventKey: TypeAlias = tuple[str, str]  # endpoint and id


def handlers_to_hold(batch: Batch) -> list[int]:
    """Return the handlers whose lines a batch adds to or parks, or whose limits it spends.

    They are held before any job is, in this order: no two processes wait for each other.
    """
    held = {claimant.handler_id for claimant in batch.claim_for if claimant.is_limited}
    for mark in batch.marks:
        line = mark.line
        if line and parks(mark.transition.state, line.on_dead):
            held.add(line.handler_id)
    for delivery in batch.deliveries:
        if isinstance(delivery, NewEvent):
            held.update(job.handler_id for job in delivery.others if job.line)
    return sorted(held)


class Arrivals:
    """The events of a batch, each once.

    Attributes:
        first: the first delivery of each event, by endpoint and id.
    """

    def __init__(self, batch: Batch) -> None:
        self._deliveries = batch.deliveries
        self.first: dict[EventKey, NewEvent] = {}
        for delivery in batch.deliveries:
            if isinstance(delivery, NewEvent):
                self.first.setdefault(_key(delivery), delivery)

    def jobs(self, room: int) -> Iterator[tuple[EventKey, int, bool]]:
        """Yield the jobs that new events get: event, handler, and whether it is leased."""
        for key, new in self.first.items():
            for handler_id in new.handler_ids:
                yield key, handler_id, room > 0
                room -= 1

    def others(self, seqs: Mapping[EventKey, int]) -> list[tuple[int, NewJob]]:
        """Return the jobs that may not be inserted as leased, of events that were not there."""
        return [
            (seqs[key], job) for key, new in self.first.items() if key in seqs for job in new.others
        ]

    def again(self, stored: Container[EventKey]) -> list[NewEvent]:
        """Return the deliveries of events that were there before; ``stored`` were not."""
        return [
            delivery
            for delivery in self._deliveries
            if isinstance(delivery, NewEvent)
            and not (_key(delivery) in stored and delivery is self.first[_key(delivery)])
        ]

    def tell(
        self, committed: Committed, again: Sequence[NewEvent], first_hashes: Mapping[int, bytes]
    ) -> None:
        """Fill in what became of each delivery.

        Args:
            first_hashes: of the bodies that are stored of ``again``, by place in it.
        """
        places = {id(delivery): place for place, delivery in enumerate(again)}
        for delivery in self._deliveries:
            place = places.get(id(delivery))
            if isinstance(delivery, NewQuarantined):
                committed.receipts.append("quarantined")
            elif place is None:
                committed.receipts.append("new")
            else:
                body_hash = hash_body(delivery.body)
                first_hash = first_hashes.get(place, body_hash)
                conflict = first_hash != body_hash
                committed.receipts.append("conflict" if conflict else "duplicate")
                if conflict:
                    hashes = first_hash.hex(), body_hash.hex()
                    committed.conflicts.append((*_key(delivery), *hashes))


def _key(new: NewEvent) -> EventKey:
    return new.event.endpoint, new.event.id


def leased_job(id: int, handler_id: int, new: NewEvent, now: int) -> LeasedJob:
    """Return a job that was inserted as leased."""
    # Handlers do not share an event's payload.
    event = copy(new.event) if len(new.handler_ids) > 1 else new.event
    return LeasedJob(id, 1, handler_id, event, now)


def claimed_jobs(rows: Sequence[Any]) -> list[LeasedJob]:
    """Return claimed jobs, in order, from rows with the columns of jobs and of their events."""
    return [
        LeasedJob(
            id=row["id"],
            fence=row["fence"],
            handler_id=row["handler_id"],
            event=Event(
                id=row["event_id"],
                type=row["type"],
                body=row["body"],
                endpoint=row["endpoint"],
                received_at=from_micros(row["received_at"]),
                raw_headers=row["headers"],
            ),
            created_at=row["created_at"],
            attempts=row["attempts"],
            failed=row["failed"],
            orphaned=bool(row["orphaned"]),
            replayed_from=row["replayed_from"],
            keyed_by=row["keyed_by"],
            ordering_key=row["ordering_key"],
        )
        for row in sorted(rows, key=lambda row: row["id"])
    ]
