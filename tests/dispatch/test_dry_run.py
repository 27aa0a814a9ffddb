"""Dry runs: handlers run for real, and nothing of what they write is left."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from databases import on_every_database
from dispatchkit import all_jobs, deliver, make_hooks, post, settled
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import Discard, Event, Hooks, Job, RetryLater
from animica_hooks.errors import ReplayRefused
from animica_hooks.testing import make_event

pytestmark = [pytest.mark.usefixtures("quick_poll"), on_every_database]


@pytest.fixture
async def hooks(inbox_url: str) -> AsyncIterator[Hooks]:
    """A running app whose handlers write to a table of their own, after one event."""
    hooks = make_hooks(inbox_url)

    @hooks.on("order.*", name="coroutine")
    async def coroutine(event: Event, session: AsyncSession) -> None:
        await session.execute(text("SELECT * FROM effects"))
        await session.execute(text("INSERT INTO effects VALUES ('a'), ('b')"))
        await session.commit()
        await session.execute(text("UPDATE effects SET id = 'c'"))

    @hooks.on("order.*", name="plain")
    def plain(event: Event, session: Session, job: Job) -> None:
        session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})
        if job.replayed_from is not None:
            raise ValueError(f"no {event.id}")

    @hooks.on("refund.*", name="bare")
    async def bare(event: Event) -> None: ...

    async with hooks.lifespan():
        await execute(hooks, "CREATE TABLE effects (id TEXT)")
        await deliver(hooks, "evt_1", type="order.paid")
        await settled(hooks)
        yield hooks


async def execute(hooks: Hooks, statement: str) -> None:
    assert hooks._runtime is not None
    async with hooks._runtime.store.write("test") as connection:
        await connection.exec_driver_sql(statement)


async def effects(hooks: Hooks) -> list[str]:
    assert hooks._runtime is not None
    async with hooks._runtime.store.read() as connection:
        return [id for (id,) in await connection.exec_driver_sql("SELECT id FROM effects")]


async def test_a_dry_run_reports_and_leaves_nothing(hooks: Hooks) -> None:
    """What each handler wrote, raised and took is told; tables and jobs are as before."""
    before, jobs = await effects(hooks), await all_jobs(hooks)

    done = await hooks.replay(types=["order.*"], dry_run=True)

    assert (None, 2, 0, 0) == (done.id, done.planned, done.created, done.skipped)
    coroutine, plain = done.runs
    assert ("evt_1", "coroutine") == (coroutine.event_id, coroutine.handler)
    assert [("INSERT effects", 2), ("UPDATE effects", 2 + len(before))] == coroutine.writes
    assert coroutine.error is None
    assert ("evt_1", "plain") == (plain.event_id, plain.handler)
    assert [("INSERT effects", 1)] == plain.writes
    assert "ValueError: no evt_1" == plain.error
    assert 0 < coroutine.seconds < 20
    assert 0 < plain.seconds < 20
    assert before == await effects(hooks)
    assert jobs == await all_jobs(hooks)


async def test_receiving_goes_on_after_a_dry_run(hooks: Hooks) -> None:
    """No lock is left, whatever a dry run ended in."""
    for _ in range(3):
        await hooks.replay(types=["order.*"], dry_run=True)

    await deliver(hooks, "evt_2", type="order.paid")
    await settled(hooks)
    assert {"succeeded"} == {job.state for job in await all_jobs(hooks, event_id="evt_2")}


async def test_handlers_without_a_session_are_refused(hooks: Hooks) -> None:
    """Where nothing could be rolled back a dry run refuses, and runs only when forced."""
    await deliver(hooks, "evt_2", type="refund.made")
    await settled(hooks)

    with pytest.raises(ReplayRefused, match="ask for none: bare\\."):
        await hooks.replay(all=True, dry_run=True)
    forced = await hooks.replay(all=True, dry_run=True, force=True)

    assert ["coroutine", "plain", "bare"] == [run.handler for run in forced.runs]
    done = await hooks.replay(types=["order.*"], dry_run=True)
    assert 2 == len(done.runs)


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (RetryLater(5), "RetryLater(5)"),
        (Discard("no"), "Discard(no)"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("token " + "whsec" + "_abcdefghijklmnop"), "ValueError: token ***"),
    ],
)
async def test_every_end_is_described(inbox_url: str, error: BaseException, described: str) -> None:
    """Outcomes and errors of any kind are told by name, without secrets, and end nothing else."""
    hooks = make_hooks(inbox_url, dispatch=False)

    @hooks.on("*", name="coroutine")
    async def coroutine(event: Event, session: AsyncSession) -> None:
        raise error

    @hooks.on("*", name="plain")
    def plain(event: Event, session: Session) -> None:
        raise error

    async with hooks.lifespan():
        assert 204 == await post(hooks, make_event("order.paid"))
        await execute(hooks, "UPDATE hooks_jobs SET state = 'dead', due_at = NULL")
        done = await hooks.replay(all=True, dry_run=True)

    assert [described, described] == [run.error for run in done.runs]


async def test_a_dry_run_that_hangs_is_ended(inbox_url: str) -> None:
    """The handler's timeout holds in a dry run too."""
    hooks = make_hooks(inbox_url, dispatch=False, timeout=0.05)

    @hooks.on("*", name="hangs")
    async def hangs(event: Event, session: AsyncSession) -> None:
        await session.execute(text("CREATE TABLE mine (x INTEGER)"))
        await asyncio.Event().wait()

    async with hooks.lifespan():
        assert 204 == await post(hooks, make_event("order.paid"))
        await execute(hooks, "UPDATE hooks_jobs SET state = 'dead', due_at = NULL")
        done = await hooks.replay(all=True, dry_run=True)

        [run] = done.runs
        assert "HandlerTimeout: it ran longer than 0.05 s." == run.error
        assert 204 == await post(hooks, make_event("order.paid"))


async def test_what_waits_is_left_to_its_job(hooks: Hooks, tmp_path: Path) -> None:
    """Jobs that are still to run are skipped, as in a replay."""
    await execute(hooks, "UPDATE hooks_jobs SET state = 'parked'")

    done = await hooks.replay(types=["order.*"], dry_run=True)

    assert (0, 2, ()) == (done.planned, done.skipped, done.runs)
