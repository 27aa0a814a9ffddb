"""The machine's clock is set while jobs run and retries wait."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from databases import on_every_database
from dispatchkit import MakeBench, all_jobs, deliver, make_hooks, settled, until

from animica_hooks import Event, RetryPolicy, Router
from animica_hooks.store.records import Batch

BACK, AHEAD = timedelta(hours=-1), timedelta(days=2)
LEASE_S, WORK_S, RETRY_S = 0.6, 2.0, 0.8
ALLOWED_S = 3.0  # to a busy machine, beyond a poll


@on_every_database
@pytest.mark.parametrize("jump", [BACK, AHEAD], ids=["back", "ahead"])
async def test_setting_the_clock_neither_repeats_nor_delays(
    inbox_url: str, jump: timedelta
) -> None:
    """What runs runs once, a retry comes when it was due, and fresh events are handled at once."""
    hooks = make_hooks(inbox_url, lease=LEASE_S)
    retry = RetryPolicy(max_attempts=2, base=RETRY_S, factor=1, jitter=False)
    long, tries, fresh = [], [], []

    @hooks.on("long", name="long")
    async def runs_long(event: Event) -> None:
        long.append(event.id)
        await asyncio.sleep(WORK_S)

    @hooks.on("flaky", name="flaky", retry=retry)
    async def flaky(event: Event) -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise ValueError

    @hooks.on("fresh", name="fresh")
    async def handles(event: Event) -> None:
        fresh.append(event.id)

    with time_machine.travel(datetime.now(UTC), tick=True) as clock:
        async with hooks.lifespan():
            await deliver(hooks, "evt_long", type="long")
            await deliver(hooks, "evt_flaky", type="flaky")
            await until(lambda: len(long) == len(tries) == 1)
            clock.shift(jump)
            async with asyncio.timeout(1 + ALLOWED_S):
                await deliver(hooks, "evt_fresh", type="fresh")
                await until(lambda: bool(fresh))
            await settled(hooks)
            jobs = {job.event_id: (job.state, job.attempts) for job in await all_jobs(hooks)}

    assert ["evt_long"] == long
    assert 2 == len(tries)
    assert RETRY_S <= tries[1] - tries[0] < RETRY_S + 1 + ALLOWED_S
    expected = {"evt_long": 1, "evt_flaky": 2, "evt_fresh": 1}
    assert {id: ("succeeded", attempts) for id, attempts in expected.items()} == jobs


@on_every_database
@pytest.mark.parametrize("jump", [BACK, AHEAD], ids=["back", "ahead"])
async def test_over_a_restart_the_jobs_of_the_dead_wait_for_their_lease_only(
    start_bench: MakeBench, router: Router, jump: timedelta
) -> None:
    """Wherever the clock was set to meanwhile, what a dead process held runs soon, and once."""
    ran: list[str] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        ran.append(event.id)

    with time_machine.travel(datetime.now(UTC), tick=True) as clock:
        dead = await start_bench(router, lease_s=LEASE_S, owner="dead")
        await dead.store.commit(Batch(deliveries=[dead.new("evt_1")], room=100))
        await dead.stop(seconds=0.1)
        clock.shift(jump)
        heir = await start_bench(router, lease_s=LEASE_S, owner="heir")
        async with asyncio.timeout(LEASE_S + 1 + ALLOWED_S):
            await heir.settled()
        job = await heir.job()

    assert ["evt_1"] == ran
    assert ("succeeded", 1) == (job.state, job.attempts)
