"""A large replay while deliveries come in: it keeps to its rate, and they do not notice."""

import asyncio
import time

from databases import on_every_database
from dispatchkit import FULL, all_jobs, deliver, make_hooks, numbered, settled, until
from sqlalchemy import select

from animica_hooks import Event, Hooks
from animica_hooks.store.tables import replays

STORED = 10_000 if FULL else 600
RATE = 50.0
WORK_S = 0.02  # twice as much as the rate is what two at once can do
LIVE_S = 5.0 if FULL else 1.5


async def stored(hooks: Hooks) -> None:
    """Have many events stored and handled."""
    ids = list(numbered(STORED, "old"))
    for start in range(0, STORED, 100):
        await asyncio.gather(*[deliver(hooks, id, type="old") for id in ids[start : start + 100]])
    await settled(hooks)


@on_every_database
async def test_live_events_do_not_wait_behind_a_replay(inbox_url: str) -> None:
    """Asked for twice it makes its jobs once; fresh events are handled at once meanwhile."""
    hooks = make_hooks(inbox_url, concurrency=2)
    working = False
    ran: list[str] = []
    done: dict[str, float] = {}

    @hooks.on("*", name="shop")
    async def shop(event: Event) -> None:
        if working:
            await asyncio.sleep(WORK_S)
            ran.append(event.type)
            done[event.id] = time.monotonic()

    async with hooks.lifespan():
        await stored(hooks)
        working = True
        began = time.monotonic()
        replaying = [asyncio.create_task(hooks.replay(types=["old"], rate=RATE)) for _ in range(2)]
        sent: dict[str, float] = {}
        for id in numbered(1_000_000, "live"):
            if all(task.done() for task in replaying) and time.monotonic() - began > LIVE_S:
                break
            sent[id] = time.monotonic()
            await deliver(hooks, id, type="live")
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
        replayed = ran.count("old")
        await until(lambda: sent.keys() <= done.keys())
        made = [await task for task in replaying]
        jobs = [job for job in await all_jobs(hooks) if job.replay_id is not None]
        assert hooks._runtime is not None
        async with hooks._runtime.store.read() as connection:
            kept = (await connection.execute(select(replays).order_by(replays.c.id))).all()

    assert STORED == sum(replay.created for replay in made) == len(jobs)
    assert len(jobs) == len({job.event_id for job in jobs})
    assert 0 < replayed <= RATE * (seconds + 1)
    assert max(done[id] - sent[id] for id in sent) < 3.0  # all of them take twice as long
    audited = [(row.id, row.planned, row.created, row.skipped) for row in kept]
    expected = [(made.id, made.planned, made.created, made.skipped) for made in made]
    assert sorted(audited) == sorted(expected)
    assert all("old" in row.filters and row.finished_at for row in kept)


@on_every_database
async def test_what_runs_is_not_replayed(inbox_url: str) -> None:
    """A job that is running just now is not repeated beside itself."""
    hooks = make_hooks(inbox_url)
    running, may_end = asyncio.Event(), asyncio.Event()

    @hooks.on("*", name="slow")
    async def slow(event: Event) -> None:
        running.set()
        await may_end.wait()

    async with hooks.lifespan():
        await deliver(hooks, "evt_1")
        await running.wait()
        made = await hooks.replay(ids=["evt_1"])
        may_end.set()
        await settled(hooks)
        [job] = await all_jobs(hooks)

    assert (0, 1) == (made.created, made.skipped)
    assert ("succeeded", 1) == (job.state, job.attempts)
