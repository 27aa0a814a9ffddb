"""What the transaction of a batch does in SQLite.

Rule 1: statements of many rows come in a few sizes, filled up with rows of NULL: each is prepared
        once.
Rule 2: numbers of events and jobs are given here, under the write lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import chain
from typing import Any, TypeVar

from animica_hooks.core.event import Event, hash_body
from animica_hooks.core.fair import share
from animica_hooks.core.order import aftermath
from animica_hooks.core.outcome import from_micros
from animica_hooks.store import inbox
from animica_hooks.store import sqlite_sql as sql
from animica_hooks.store.records import (
    Batch,
    Committed,
    LeasedJob,
    Mark,
    NewEvent,
    NewJob,
    NewQuarantined,
)
from animica_hooks.store.tables import UNSORTED

T = TypeVar("T")

MOST_ROWS = 256  # of a statement; a power of two


class Batches:
    """Carries out batches, for one process.

    Args:
        owner: the process, as the jobs name it that it leases.
        lease: how long these leases last, in microseconds.
    """

    def __init__(self, owner: str, lease: int) -> None:
        self._owner = owner
        self._lease = lease

    def execute(self, connection: sqlite3.Connection, batch: Batch, now: int) -> Committed:
        """Do all that a batch asks for; the caller begins and commits.

        Args:
            now: in microseconds since the epoch.

        Raises:
            sqlite3.Error: roll back; nothing of the batch is done.
        """
        fenced = self._mark(connection, batch.marks, now) if batch.marks else 0
        committed = self._receive(connection, batch, now)
        committed.fenced = fenced
        if batch.claim:
            committed.claimed = self._claim(connection, batch, now)
        return committed

    def _mark(self, connection: sqlite3.Connection, marks: Sequence[Mark], now: int) -> int:
        """Carry out transitions; return how many came too late."""
        plain = [mark for mark in marks if mark.is_plain]
        changed = self._complete(connection, plain, now)
        for mark in marks:
            if mark.is_plain:
                continue
            if not connection.execute(sql.MARK, _mark_values(mark, now)).rowcount:
                continue
            changed += 1
            if line := mark.line:
                parks, due_at = aftermath(mark.transition.state, line, now)
                if parks:
                    connection.execute(sql.PARK, (line.handler_id, line.key, mark.job_id))
                if due_at is not None:
                    connection.execute(sql.CALL_NEXT, (due_at, line.handler_id, line.key))
            if failure := mark.failure:
                connection.execute(
                    sql.INSERT_FAILURE,
                    (mark.job_id, mark.attempt, now, *failure),
                )
                connection.execute(
                    sql.TRIM_FAILURES, (mark.job_id, mark.attempt - inbox.KEPT_FAILURES)
                )
        return len(marks) - changed

    def _complete(self, connection: sqlite3.Connection, marks: Sequence[Mark], now: int) -> int:
        by_fence = inbox.by_fence((mark.job_id, mark.fence) for mark in marks)
        changed = 0
        for fence, ids in by_fence.items():
            for some in _filled_up(ids, None):
                values = (now, fence, *some)
                changed += connection.execute(sql.complete(len(some)), values).rowcount
        return changed

    def _receive(self, connection: sqlite3.Connection, batch: Batch, now: int) -> Committed:
        committed = Committed()
        seqs = self._insert_events(connection, batch.deliveries) if batch.deliveries else {}
        [(job_id,)] = connection.execute(sql.LAST_JOB)
        as_leased = ("leased", now + self._lease, 1, self._owner, now)
        as_available = ("available", now, 0, None, now)
        rows: list[tuple[Any, ...]] = []
        others: list[tuple[int, int, NewJob]] = []
        for position, delivery in enumerate(batch.deliveries):
            if isinstance(delivery, NewQuarantined):
                self._quarantine(connection, delivery)
                committed.receipts.append("quarantined")
                continue
            seq = seqs.get(position)
            if seq is None:
                self._redeliver(connection, delivery, committed)
                continue
            committed.receipts.append("new")
            event, shared = delivery.event, len(delivery.handler_ids) > 1
            for job in delivery.others:
                job_id += 1
                others.append((job_id, seq, job))
            for handler_id in delivery.handler_ids:
                job_id += 1
                if len(committed.leased) < batch.room:
                    rows.append((job_id, seq, handler_id, *as_leased))
                    own = copy(event) if shared else event  # handlers do not share its payload
                    committed.leased.append(LeasedJob(job_id, 1, handler_id, own, now))
                else:
                    rows.append((job_id, seq, handler_id, *as_available))
                    committed.waiting = True
        _insert_many(connection, sql.insert_jobs, rows)
        committed.waiting |= bool(others)
        for job_id, seq, job in others:
            self._insert_other(connection, job_id, seq, job, now)
        return committed

    def _insert_other(
        self, connection: sqlite3.Connection, job_id: int, seq: int, job: NewJob, now: int
    ) -> None:
        newest = None
        if job.line is not None:
            where = job.line.handler_id, job.line.key
            newest = connection.execute(sql.NEWEST_IN_LINE, where).fetchone()
        state, due_at = inbox.joined(job, newest, now)
        connection.execute(
            sql.INSERT_JOB,
            (
                job_id,
                seq,
                job.handler_id,
                state,
                due_at,
                now,
                job.line.key if job.line else None,
                job.unusable,
                now if job.unusable else None,
                UNSORTED if job.unsorted else 0,
            ),
        )

    def _insert_events(
        self, connection: sqlite3.Connection, deliveries: Sequence[NewEvent | NewQuarantined]
    ) -> dict[int, int]:
        """Insert events whose id is new; return their sequence numbers, by position.

        The numbers are given here, under the write lock: asking for them with RETURNING costs
        twice as much as the insert.
        """
        [(last,)] = connection.execute(sql.LAST_EVENT)
        seqs: dict[int, int] = {}
        rows: list[tuple[Any, ...]] = []
        for position, new in enumerate(deliveries):
            if isinstance(new, NewEvent):
                e = new.event
                seqs[position] = seq = last + position + 1
                rows.append((seq, e.endpoint, e.id, e.type, new.received_at, e.raw_headers, e.body))
        if _insert_many(connection, sql.insert_events, rows) < len(rows):
            stored = {seq for (seq,) in connection.execute(sql.EVENTS_AFTER, (last,))}
            seqs = {position: seq for position, seq in seqs.items() if seq in stored}
        return seqs

    def _redeliver(
        self, connection: sqlite3.Connection, delivery: NewEvent, committed: Committed
    ) -> None:
        e = delivery.event
        found = connection.execute(sql.FIND_EVENT, (e.endpoint, e.id)).fetchone()
        seq, first_body, first_hash = found
        first_hash, body_hash = first_hash or hash_body(first_body), hash_body(e.body)
        conflict = first_hash != body_hash
        connection.execute(sql.REDELIVER, (seq, body_hash, conflict, delivery.received_at))
        committed.receipts.append("conflict" if conflict else "duplicate")
        if conflict:
            committed.conflicts.append((e.endpoint, e.id, first_hash.hex(), body_hash.hex()))

    def _quarantine(self, connection: sqlite3.Connection, held: NewQuarantined) -> None:
        connection.execute(
            sql.QUARANTINE,
            (
                held.endpoint, held.body_hash, held.received_at, held.reason, held.raw_headers,
                held.body,
            ),
        )  # fmt: skip

    def _claim(self, connection: sqlite3.Connection, batch: Batch, now: int) -> list[LeasedJob]:
        """Lease due jobs, each handler in its turn an equal share of what may be claimed."""
        claimed: list[tuple[Any, ...]] = []
        until, left = now + self._lease, batch.claim
        for position, claimant in enumerate(batch.claim_for):
            most = share(left, batch.claim_for[position:])
            tokens = 0.0
            if claimant.is_limited:
                limited = connection.execute(sql.LIMITED, (claimant.handler_id,)).fetchone()
                most, tokens = inbox.grant(claimant, most, limited, now)
            found = connection.execute(
                sql.CLAIM,
                (until, self._owner, claimant.handler_id, int(batch.claim_orphans), now, most),
            ).fetchall()
            if found and claimant.rate is not None:
                spent = (tokens - len(found), now, claimant.handler_id)
                connection.execute(sql.SPEND, spent)
            claimed += found
            left -= len(found)
        events = self._load_events(connection, {row[1] for row in claimed})
        claimed.sort(key=lambda row: row[0])
        return [
            LeasedJob(
                id=id,
                fence=fence,
                handler_id=handler_id,
                event=copy(events[seq]),  # handlers do not share its payload
                created_at=created_at,
                attempts=attempts,
                failed=failed,
                orphaned=bool(orphaned),
                replayed_from=replayed_from,
                keyed_by=keyed_by,
                ordering_key=ordering_key,
            )
            for (
                id, seq, handler_id, fence, created_at, attempts, failed, orphaned,
                replayed_from, keyed_by, ordering_key,
            ) in claimed
        ]  # fmt: skip

    def _load_events(
        self, connection: sqlite3.Connection, seqs: Iterable[int]
    ) -> dict[int, Event[Any]]:
        events: dict[int, Event[Any]] = {}
        for seq in seqs:
            found = connection.execute(sql.LOAD_EVENT, (seq,)).fetchone()
            endpoint, id, type, received_at, headers, body = found
            events[seq] = Event(
                id=id,
                type=type,
                body=body,
                endpoint=endpoint,
                received_at=from_micros(received_at),
                raw_headers=headers,
            )
        return events


def _insert_many(
    connection: sqlite3.Connection,
    statement: Callable[[int], str],
    rows: Sequence[tuple[Any, ...]],
) -> int:
    """Insert rows; return how many were."""
    inserted = 0
    for some in _filled_up(rows, (None,) * len(rows[0])) if rows else ():
        values = list(chain.from_iterable(some))
        inserted += connection.execute(statement(len(some)), values).rowcount
    return inserted


def _filled_up(items: Sequence[T], nothing: T) -> Iterator[list[T]]:
    """Yield the items in lists of at most ``MOST_ROWS``, filled up to a power of two."""
    for start in range(0, len(items), MOST_ROWS):
        some = list(items[start : start + MOST_ROWS])
        size = 1 << (len(some) - 1).bit_length()
        yield some + [nothing] * (size - len(some))


def _mark_values(mark: Mark, now: int) -> tuple[Any, ...]:
    values = inbox.mark_parameters(mark, now)
    return tuple(values[name] for name in sql.MARK_ORDER)
