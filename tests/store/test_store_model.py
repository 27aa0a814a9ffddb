"""Random histories: the store agrees with a model of it that fits on a page."""

import asyncio
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from databases import on_every_database
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from storekit import (
    FULL,
    Clock,
    all_rows,
    buried,
    cancelled,
    completed,
    new_event,
    released,
    retried,
    unusable,
)

from animica_hooks.core.fair import Claimant
from animica_hooks.core.job import State
from animica_hooks.core.outcome import SECOND
from animica_hooks.store.connect import make_store
from animica_hooks.store.records import Batch, Committed, LeasedJob, Mark, NewEvent
from animica_hooks.store.tables import events, jobs, quarantine, redeliveries

LEASE_S = 30
HANDLERS = (1, 2, 3)
IDS = [f"evt_{n}" for n in range(6)]


@dataclass
class ModelJob:
    """A row of the jobs' table, as it should be."""

    event_id: str
    handler_id: int
    state: State
    due_at: int | None
    fence: int = 0
    attempts: int = 0
    failed: int = 0
    orphaned: bool = False


MARKS: dict[str, Callable[[LeasedJob, int], Mark]] = {
    "complete": lambda job, now: completed(job),
    "retry": lambda job, now: retried(job, now + 3 * SECOND),
    "bury": lambda job, now: buried(job),
    "cancel": lambda job, now: cancelled(job, "no"),
    "release": released,
    "orphan": lambda job, now: released(job, now, orphaned=True),
}


class Inbox(RuleBasedStateMachine):
    """Two processes on one database, which are late, lose leases and repeat themselves."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.stores = [
            make_store(url, owner=owner, lease_s=LEASE_S, handlers=1) for owner in ("one", "two")
        ]
        for store in self.stores:
            setattr(store, "now", self.clock)  # noqa: B010 - mypy takes it for a method
            self.run(store.open(migrate=False))
        self.bodies: dict[str, bytes] = {}
        self.duplicates = self.conflicts = self.unusable = 0
        self.jobs: dict[int, ModelJob] = {}
        self.held: list[LeasedJob] = []  # every lease there ever was, lost ones too

    def teardown(self) -> None:
        for store in self.stores:
            self.run(store.close())
        self.runner.close()

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def commit(self, data: st.DataObject, batch: Batch) -> Committed:
        store = data.draw(st.sampled_from(self.stores))
        committed: Committed = self.run(store.commit(batch))
        return committed

    @rule(
        data=st.data(),
        deliveries=st.lists(
            st.tuples(
                st.sampled_from(IDS),
                st.sampled_from([b"one", b"two", b"\x00\xff"]),
                st.lists(st.sampled_from(HANDLERS), unique=True),
            )
            | st.none(),
            max_size=8,
        ),
        room=st.integers(0, 6),
    )
    def deliver(self, data: st.DataObject, deliveries: list[Any], room: int) -> None:
        batch = Batch(
            deliveries=[
                unusable() if one is None else new_event(one[0], body=one[1], handlers=one[2])
                for one in deliveries
            ],
            room=room,
        )

        committed = self.commit(data, batch)

        assert [self.receipt(delivery) for delivery in batch.deliveries] == committed.receipts
        made = [
            (delivery.event.id, handler_id)
            for delivery, receipt in zip(batch.deliveries, committed.receipts, strict=True)
            if receipt == "new" and isinstance(delivery, NewEvent)
            for handler_id in delivery.handler_ids
        ]
        assert made[:room] == [(job.event.id, job.handler_id) for job in committed.leased]
        assert (len(made) > room) == committed.waiting
        self.add_jobs(made, committed.leased)

    def receipt(self, delivery: Any) -> str:
        if not isinstance(delivery, NewEvent):
            self.unusable += 1
            return "quarantined"
        stored = self.bodies.setdefault(delivery.event.id, b"")
        if not stored:
            self.bodies[delivery.event.id] = delivery.body
            return "new"
        if stored == delivery.body:
            self.duplicates += 1
            return "duplicate"
        self.conflicts += 1
        return "conflict"

    def add_jobs(self, made: list[tuple[str, int]], leased: list[LeasedJob]) -> None:
        rows = [row for row in self.run(all_rows(self.stores[0], jobs)) if row.id not in self.jobs]
        assert len(made) == len(rows)
        for position, ((event_id, handler_id), row) in enumerate(zip(made, rows, strict=True)):
            now = self.clock()
            if position < len(leased):
                job = ModelJob(event_id, handler_id, State.LEASED, now + LEASE_S * SECOND, fence=1)
                assert row.id == leased[position].id
            else:
                job = ModelJob(event_id, handler_id, State.AVAILABLE, now)
            self.jobs[row.id] = job
        self.held += leased

    @rule(
        data=st.data(),
        which=st.lists(
            st.tuples(st.integers(0, 50), st.sampled_from(sorted(MARKS))),
            max_size=4,
            unique_by=lambda mark: mark[0],
        ),
    )
    def mark(self, data: st.DataObject, which: list[tuple[int, str]]) -> None:
        chosen = [(self.held[n], kind) for n, kind in which if n < len(self.held)]
        # Of two marks for one job in a batch either may count: not what is asked here.
        chosen = list({job.id: (job, kind) for job, kind in chosen}.values())
        marks = [MARKS[kind](job, self.clock()) for job, kind in chosen]

        committed = self.commit(data, Batch(marks=marks))

        late = [mark for mark in marks if not self.holds(mark.job_id, mark.fence)]
        assert len(late) == committed.fenced
        for mark in marks:
            if mark not in late:
                self.carry_out(mark)

    def carry_out(self, mark: Mark) -> None:
        job, transition = self.jobs[mark.job_id], mark.transition
        job.state = transition.state
        job.due_at = transition.due_at
        job.attempts += transition.attempts
        job.failed += transition.failed
        job.orphaned = transition.orphaned

    def holds(self, job_id: int, fence: int) -> bool:
        job = self.jobs[job_id]
        return job.state is State.LEASED and job.fence == fence

    @rule(which=st.lists(st.integers(0, 50), max_size=4, unique=True))
    def renew(self, which: list[int]) -> None:
        leases = [(self.held[n].id, self.held[n].fence) for n in which if n < len(self.held)]

        if leases:
            self.run(asyncio.to_thread(self.stores[0].renew, leases))

        for job_id, _ in [lease for lease in leases if self.holds(*lease)]:
            self.jobs[job_id].due_at = self.clock() + LEASE_S * SECOND

    @rule(
        data=st.data(),
        most=st.integers(1, 5),
        handler=st.sampled_from(HANDLERS),
        orphans=st.booleans(),
    )
    def claim(self, data: st.DataObject, most: int, handler: int, orphans: bool) -> None:
        batch = Batch(claim=most, claim_for=[Claimant(handler)], claim_orphans=orphans)

        claimed = self.commit(data, batch).claimed

        due = {
            job_id: job.due_at or 0
            for job_id, job in self.jobs.items()
            if job.state is State.AVAILABLE
            and job.handler_id == handler
            and job.orphaned == orphans
            and (job.due_at or 0) <= self.clock()
        }
        assert sorted(due.values())[:most] == sorted(due[job.id] for job in claimed)
        for job in claimed:
            model = self.jobs[job.id]
            model.state, model.fence = State.LEASED, model.fence + 1
            model.due_at = self.clock() + LEASE_S * SECOND
            body = self.bodies[model.event_id]
            assert (model.event_id, body, handler, model.fence, model.attempts, model.failed) == (
                job.event.id, job.event.body, job.handler_id, job.fence, job.attempts, job.failed,
            )  # fmt: skip
        self.held += claimed

    @rule(seconds=st.sampled_from([0.5, 3, 40]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        store = self.stores[1]
        stored = {row.id: row.body for row in self.run(all_rows(store, events))}
        assert self.bodies == stored
        again = self.run(all_rows(store, redeliveries))
        assert self.duplicates == sum(row.count for row in again if not row.conflict)
        assert self.conflicts == sum(row.count for row in again if row.conflict)
        held = self.run(all_rows(store, quarantine))
        assert self.unusable == sum(row.deliveries for row in held)
        assert self.jobs == {
            row.id: ModelJob(
                self.jobs[row.id].event_id,
                row.handler_id,
                State(row.state),
                row.due_at,
                row.fence,
                row.attempts,
                row.failed,
                bool(row.orphaned),
            )
            for row in self.run(all_rows(store, jobs))
        }


@on_every_database
def test_the_store_agrees_with_its_model(
    database_kind: str, migrated: Path, tmp_path: Path, empty_database: Callable[[str], str]
) -> None:
    """Whatever two processes do, and in whatever order, the tables are what the model says."""
    numbers = itertools.count()

    def on_nothing() -> Inbox:
        if database_kind != "sqlite":
            return Inbox(empty_database(database_kind))
        path = tmp_path / f"inbox-{next(numbers)}.db"
        shutil.copyfile(migrated, path)
        return Inbox(f"sqlite:///{path}")

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        on_nothing,
        settings=settings(
            max_examples=200 if FULL else (12 if database_kind == "sqlite" else 4),
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
