"""What every store promises of handlers' sessions: they commit with the mark or not at all."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks.errors import LeaseLost
from animica_hooks.store.base import Store
from animica_hooks.store.records import Batch, LeasedJob
from animica_hooks.store.session import Unit
from animica_hooks.testing.store_contract.kit import (
    NOON,
    all_rows,
    claim,
    commit_leased,
    completed,
    job_row,
    new_event,
    released,
)

# A table of the user's own.
orders = Table(
    "orders",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("what", String(20)),
    mysql_engine="InnoDB",
)


class HandlerFails(Exception):
    """Raised by a handler."""


@pytest.fixture
async def job(store: Store) -> LeasedJob:
    """A job that is about to write to the user's table."""
    async with store.write("test") as connection:
        await connection.run_sync(orders.create)
    [job] = await commit_leased(store, new_event())
    return job


async def ordered(store: Store) -> list[str]:
    return [row.what for row in await all_rows(store, orders)]


async def finish(session: AsyncSession, unit: Unit, job: LeasedJob) -> bool:
    """End a handler as the runner does: commit its writes with the mark."""
    return await session.run_sync(unit.complete, completed(job), NOON)


async def test_what_a_handler_wrote_commits_with_its_mark(store: Store, job: LeasedJob) -> None:
    """Nothing is seen before the end, and then both the write and the mark."""
    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="new"))
        assert [] == await ordered(store)
        assert (await job_row(store, job.id)).state == "leased"

        assert await finish(session, unit, job) is True

    assert ["new"] == await ordered(store)
    assert (await job_row(store, job.id)).state == "succeeded"


async def test_what_a_plain_handler_wrote_commits_with_its_mark(
    store: Store, job: LeasedJob
) -> None:
    """A plain function's session promises the same, in a thread."""

    def handle() -> bool:
        with store.sync_session("handler") as (session, unit):
            session.execute(insert(orders).values(what="new"))
            return unit.complete(session, completed(job), NOON)

    assert await asyncio.to_thread(handle) is True
    assert ["new"] == await ordered(store)
    assert (await job_row(store, job.id)).state == "succeeded"


@pytest.mark.parametrize("says_commit", [False, True])
async def test_what_a_failed_handler_wrote_is_gone(
    store: Store, job: LeasedJob, says_commit: bool
) -> None:
    """All is rolled back, though the handler has said commit, and the job keeps its lease."""

    async def handle() -> None:
        async with store.session("handler") as (session, _):
            await session.execute(insert(orders).values(what="new"))
            if says_commit:
                await session.commit()
            raise HandlerFails

    with pytest.raises(HandlerFails):
        await handle()

    assert [] == await ordered(store)
    assert (await job_row(store, job.id)).state == "leased"


@pytest.mark.parametrize("says_commit", [False, True])
async def test_what_a_failed_plain_handler_wrote_is_gone(
    store: Store, job: LeasedJob, says_commit: bool
) -> None:
    """The same in a thread."""

    def handle() -> None:
        with store.sync_session("handler") as (session, _):
            session.execute(insert(orders).values(what="new"))
            if says_commit:
                session.commit()
            raise HandlerFails

    with pytest.raises(HandlerFails):
        await asyncio.to_thread(handle)

    assert [] == await ordered(store)
    assert (await job_row(store, job.id)).state == "leased"


async def test_a_handler_that_lost_its_lease_writes_nothing(store: Store, job: LeasedJob) -> None:
    """A handler whose job another worker has by now leaves no effect."""
    await store.commit(Batch(marks=[released(job, NOON)]))
    [again] = await claim(store)

    async def handle() -> None:
        async with store.session("handler") as (session, unit):
            await session.execute(insert(orders).values(what="late"))
            await finish(session, unit, job)

    with pytest.raises(LeaseLost):
        await handle()

    assert [] == await ordered(store)
    row = await job_row(store, job.id)
    assert ("leased", again.fence) == (row.state, row.fence)


async def test_of_two_runs_under_one_lease_one_has_its_effect(store: Store, job: LeasedJob) -> None:
    """A job that has ended can not be committed again."""
    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="first"))
        await finish(session, unit, job)

    async def handle() -> None:
        async with store.session("handler") as (session, unit):
            await session.execute(insert(orders).values(what="second"))
            await finish(session, unit, job)

    with pytest.raises(LeaseLost):
        await handle()

    assert ["first"] == await ordered(store)


async def test_a_session_that_was_not_used_has_nothing_to_commit(
    store: Store, job: LeasedJob
) -> None:
    """The mark of a handler that ran no statement goes the usual way."""
    async with store.session("handler") as (session, unit):
        assert await finish(session, unit, job) is False

    assert (await job_row(store, job.id)).state == "leased"


async def test_a_session_of_a_dry_run_lists_its_writes(store: Store, job: LeasedJob) -> None:
    """What a handler would write is told, and nothing of it stays."""
    async with store.session("handler", record=True) as (session, unit):
        await session.execute(insert(orders), [{"what": "a"}, {"what": "b"}])

    assert [("INSERT orders", 2)] == unit.recorded
    assert [] == await ordered(store)
