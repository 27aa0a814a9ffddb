"""Replays: what they repeat, in which order, with which keys, and when they refuse."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import on_every_database
from dispatchkit import all_jobs, deliver, make_hooks, numbered, settled

from animica_hooks import Discard, Event, Hooks, Job
from animica_hooks.errors import ConfigurationError, ReplayRefused

pytestmark = [pytest.mark.usefixtures("quick_poll"), on_every_database]

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Shop:
    """An app with two handlers, and what they were told.

    Attributes:
        broken: the first handler fails.
        jobs: of all attempts.
    """

    hooks: Hooks
    url: str
    broken: bool = True
    jobs: list[Job] = field(default_factory=list)

    def keys(self, handler: str, event_id: str) -> list[str]:
        """Return the idempotency keys that a handler was given for an event, one an attempt."""
        return [
            job.idempotency_key
            for job in self.jobs
            if (job.handler, job.event_id) == (handler, event_id)
        ]


@pytest.fixture
def shop(tmp_path: Path, inbox_url: str) -> Shop:
    hooks = make_hooks(inbox_url)
    shop = Shop(hooks, inbox_url)

    @hooks.on("order.*", name="ships")
    async def ships(event: Event, job: Job) -> None:
        shop.jobs.append(job)
        if shop.broken:
            raise ValueError

    @hooks.on("*", name="counts")
    def counts(event: Event, job: Job) -> None:
        shop.jobs.append(job)
        if event.type == "order.test":
            raise Discard("a test")

    return shop


@pytest.fixture
async def worked(shop: Shop) -> AsyncIterator[Shop]:
    """The app, running, after it has handled some events."""
    async with shop.hooks.lifespan():
        await deliver(shop.hooks, "evt_1", "evt_2", type="order.paid")
        await deliver(shop.hooks, "evt_3", type="order.test")
        await deliver(shop.hooks, "evt_4", type="refund.made")
        await settled(shop.hooks)
        yield shop


async def made_by(hooks: Hooks, replay_id: int | None) -> list[tuple[str, str]]:
    """Return event and handler of the jobs that a replay has made, in the order of making."""
    jobs = await all_jobs(hooks)
    return [(job.event_id, job.handler) for job in jobs if job.replay_id == replay_id]


async def test_a_replay_makes_new_jobs_in_the_order_of_receipt(worked: Shop) -> None:
    """Each new job names the one it repeats; those are left as they were."""
    hooks = worked.hooks
    before = {job.id: job for job in await all_jobs(hooks)}
    worked.broken = False

    done = await hooks.replay(types=["order.*"])
    await settled(hooks)

    assert (6, 6, 0) == (done.planned, done.created, done.skipped)
    expected = [(f"evt_{n}", handler) for n in (1, 2, 3) for handler in ("ships", "counts")]
    assert expected == await made_by(hooks, done.id)
    jobs = await all_jobs(hooks)
    assert before == {job.id: job for job in jobs if job.replay_id is None}
    for job in jobs:
        if job.replayed_from is not None:
            origin = before[job.replayed_from]
            assert (origin.event_id, origin.handler) == (job.event_id, job.handler)
    assert {"succeeded"} == {job.state for job in jobs if job.handler == "ships" and job.replay_id}


async def test_the_plan_says_what_a_replay_would_do(worked: Shop) -> None:
    """A plan counts by type and handler, names the span of time, and does nothing."""
    events = {event.id: event async for event in worked.hooks.events()}
    before = await all_jobs(worked.hooks)

    plan = await worked.hooks.plan_replay(types=["order.*"])

    assert (6, 0) == (plan.count, plan.skipped)
    assert {"order.paid": 4, "order.test": 2} == plan.by_type
    assert {"ships": 3, "counts": 3} == plan.by_handler
    assert events["evt_1"].received_at == plan.oldest
    assert events["evt_3"].received_at == plan.newest
    assert before == await all_jobs(worked.hooks)


async def test_the_plan_of_nothing_is_empty(worked: Shop) -> None:
    """Filters that match nothing are no error."""
    plan = await worked.hooks.plan_replay(ids=["evt_unknown"])
    done = await worked.hooks.replay(ids=["evt_unknown"])

    assert (0, None, None) == (plan.count, plan.oldest, plan.newest)
    assert (0, 0, 0) == (done.planned, done.created, done.skipped)


SHIPS = [("evt_1", "ships"), ("evt_2", "ships"), ("evt_3", "ships")]
COUNTS = [("evt_1", "counts"), ("evt_2", "counts"), ("evt_3", "counts"), ("evt_4", "counts")]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"ids": ["evt_2", "evt_4"]}, [SHIPS[1], COUNTS[1], COUNTS[3]]),
        ({"ids": []}, []),
        ({"types": ["refund.made"]}, [COUNTS[3]]),
        ({"types": ["refund.*", "order.test"]}, [SHIPS[2], COUNTS[2], COUNTS[3]]),
        ({"types": ["refund"]}, []),
        ({"handlers": ["ships"]}, SHIPS),
        ({"states": ["dead"]}, SHIPS),
        ({"states": ["cancelled"]}, [COUNTS[2]]),
        ({"states": ["succeeded", "cancelled"]}, COUNTS),
        ({"states": ["dead"], "ids": ["evt_1", "evt_4"]}, [SHIPS[0]]),
        ({"states": ["dead"], "handlers": ["counts"]}, []),
        ({"all": True}, sorted([*SHIPS, *COUNTS], key=lambda pair: (pair[0], pair[1] != "ships"))),
        ({"all": True, "limit": 3}, [SHIPS[0], COUNTS[0], SHIPS[1]]),
        ({"handlers": ["counts"], "limit": 2}, COUNTS[:2]),
    ],
)
async def test_all_given_filters_hold(worked: Shop, filters: Any, expected: Any) -> None:
    """Each filter narrows what is replayed, and several narrow it together."""
    plan = await worked.hooks.plan_replay(**filters)
    done = await worked.hooks.replay(**filters)

    assert len(expected) == plan.count == done.created
    assert expected == await made_by(worked.hooks, done.id)


async def test_times_of_receipt_filter(worked: Shop) -> None:
    """``since`` is included, ``until`` is not."""
    events = {event.id: event.received_at async for event in worked.hooks.events()}

    async def replayed(**filters: Any) -> list[str]:
        done = await worked.hooks.replay(handlers=["counts"], **filters)
        await settled(worked.hooks)
        return [event_id for event_id, _ in await made_by(worked.hooks, done.id)]

    assert ["evt_3", "evt_4"] == await replayed(since=events["evt_3"])
    assert ["evt_1", "evt_2"] == await replayed(until=events["evt_3"])
    assert ["evt_2"] == await replayed(since=events["evt_2"], until=events["evt_3"])
    assert [] == await replayed(since=events["evt_4"] + timedelta(seconds=1))


async def test_the_latest_job_counts(worked: Shop) -> None:
    """Once a replay has succeeded, its event is not found among the dead any more."""
    worked.broken = False
    await worked.hooks.replay(states=["dead"])
    await settled(worked.hooks)

    assert 0 == (await worked.hooks.plan_replay(states=["dead"])).count
    again = await worked.hooks.replay(handlers=["ships"], ids=["evt_1"])
    await settled(worked.hooks)
    first, second, third = await all_jobs(worked.hooks, handler="ships", event_id="evt_1")
    assert [None, first.id, second.id] == [job.replayed_from for job in (first, second, third)]
    assert again.id == third.replay_id


async def test_what_is_still_to_run_is_not_repeated(shop: Shop) -> None:
    """Jobs that wait are counted as skipped, and a replay begun twice makes them once."""
    shop.hooks.settings = make_hooks(shop.url, dispatch=False).settings
    async with shop.hooks.lifespan():
        await deliver(shop.hooks, "evt_1", "evt_2", type="order.paid")

        plan = await shop.hooks.plan_replay(types=["order.*"])
        done = await shop.hooks.replay(types=["order.*"])

        assert (0, 4) == (plan.count, plan.skipped)
        assert (0, 0, 4) == (done.planned, done.created, done.skipped)
        assert 4 == len(await all_jobs(shop.hooks))


async def test_a_second_replay_repeats_nothing_that_waits(shop: Shop) -> None:
    """A replay that is asked for twice by mistake makes its jobs once."""
    async with shop.hooks.lifespan():
        await deliver(shop.hooks, *numbered(5), type="order.paid")
        await settled(shop.hooks)
    # Nothing runs now, so that the first replay's jobs wait.
    first = await shop.hooks.replay(handlers=["ships"])
    second = await shop.hooks.replay(handlers=["ships"])

    assert (5, 0) == (first.created, first.skipped)
    assert (0, 5) == (second.created, second.skipped)


async def test_a_replay_has_new_keys(worked: Shop) -> None:
    """Whoever replays wants the effects again: each replay's jobs have keys of their own."""
    for _ in range(2):
        await worked.hooks.replay(ids=["evt_1"])
        await settled(worked.hooks)

    assert 3 == len(set(worked.keys("ships", "evt_1")))
    assert 3 == len(set(worked.keys("counts", "evt_1")))


async def test_a_replay_can_keep_the_keys(worked: Shop) -> None:
    """With ``keep_keys`` those who saw the original effect recognise it, replay after replay."""
    await worked.hooks.replay(ids=["evt_1"], keep_keys=True)
    await settled(worked.hooks)
    await worked.hooks.replay(ids=["evt_1"])
    await settled(worked.hooks)
    await worked.hooks.replay(ids=["evt_1"], keep_keys=True)
    await settled(worked.hooks)

    for handler in ("ships", "counts"):
        original, kept, new, kept_new = worked.keys(handler, "evt_1")
        assert original == kept
        assert original != new
        assert new == kept_new


async def test_a_job_that_is_run_again_keeps_its_key(worked: Shop) -> None:
    """A dead job that is made available again is the same job, with the same key."""
    [dead] = await all_jobs(worked.hooks, handler="ships", event_id="evt_1")
    await worked.hooks.retry_job(dead.id)
    await settled(worked.hooks)

    first, second = worked.keys("ships", "evt_1")
    assert first == second


async def test_a_handler_knows_that_it_is_replayed(worked: Shop) -> None:
    """Its job says which one it repeats; attempts count from 1 again."""
    [origin] = await all_jobs(worked.hooks, handler="counts", event_id="evt_1")
    await worked.hooks.replay(ids=["evt_1"], handlers=["counts"])
    await settled(worked.hooks)

    job = worked.jobs[-1]
    assert (origin.id, 1) == (job.replayed_from, job.attempt)


async def test_rate_spreads_the_due_dates(shop: Shop) -> None:
    """With a rate the jobs become due one after another, so many a second."""
    async with shop.hooks.lifespan():
        await deliver(shop.hooks, *numbered(6), type="refund.made")
        await settled(shop.hooks)

    done = await shop.hooks.replay(types=["*"], rate=0.5)

    due = [job.due_at for job in await all_jobs(shop.hooks) if job.replay_id == done.id]
    first = due[0]
    assert first is not None
    assert [2.0 * n for n in range(6)] == [(at - first).total_seconds() for at in due if at]


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
async def test_a_rate_that_is_none_is_refused(worked: Shop, rate: float) -> None:
    """Jobs a second are a number above 0; with anything else nothing is made."""
    with pytest.raises(ReplayRefused, match="rate must be"):
        await worked.hooks.replay(all=True, rate=rate)
    assert {None} == {job.replay_id for job in await all_jobs(worked.hooks)}


async def test_a_new_handler_gets_old_events(worked: Shop) -> None:
    """A handler that is registered later is replayed what it would have taken."""
    ran: list[str] = []
    later = make_hooks(worked.url)

    @later.on("order.*", name="new")
    async def new(event: Event, job: Job) -> None:
        assert job.replayed_from is None
        ran.append(event.id)

    async with later.lifespan():
        plan = await later.plan_replay(all=True)
        await later.replay(handlers=["new"])
        await settled(later)

    assert {"new": 3} == plan.by_handler
    assert ["evt_1", "evt_2", "evt_3"] == ran


async def test_an_event_without_a_key_is_never_handled_without_order(inbox_url: str) -> None:
    """One of which no key can be made is a dead letter, which is told; replayed it is so again."""
    hooks = make_hooks(inbox_url)
    ran: list[str] = []

    @hooks.on("step", name="steps", key=lambda event: event.data["key"])
    async def steps(event: Event) -> None:
        ran.append(event.id)

    async with hooks.lifespan():
        for _ in range(2):
            await deliver(hooks, "evt_1", type="step")
        assert 1 == (await hooks.stats()).counts["unkeyed"]  # of the new one, not of its duplicate
        for _ in range(2):
            assert 1 == (await hooks.replay(all=True)).created
            await settled(hooks)

        dead = [(job.state, job.reason) for job in await all_jobs(hooks)]
        assert [("dead", "key= raised KeyError")] * 3 == dead
    assert [] == ran


async def test_progress_is_told(worked: Shop) -> None:
    """Whoever watches is told how many of how many jobs are made."""
    told: list[tuple[int, int]] = []

    await worked.hooks.replay(
        types=["order.*"], on_progress=lambda done, planned: told.append((done, planned))
    )

    assert (6, 6) == told[-1]


async def test_many_events_are_replayed_in_order(shop: Shop) -> None:
    """More events than are read at once keep their order, and each is replayed once."""
    async with shop.hooks.lifespan():
        await deliver(shop.hooks, *numbered(600), type="refund.made")
        await settled(shop.hooks)

    done = await shop.hooks.replay(types=["refund.*"], limit=555)

    assert 555 == done.created
    expected = [(id, "counts") for id in numbered(555)]
    assert expected == await made_by(shop.hooks, done.id)


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        ({}, "without a filter"),
        ({"limit": 5}, "without a filter"),
        ({"ids": "evt_1"}, "ids must be a list"),
        ({"types": "order.*"}, "types must be a list"),
        ({"states": "dead"}, "states must be a list"),
        ({"handlers": "ships"}, "handlers must be a list"),
        ({"states": ["died"]}, "no job is ever 'died'"),
        ({"handlers": ["sings"]}, "no handler 'sings'"),
        ({"since": datetime(2026, 1, 1)}, "aware"),  # noqa: DTZ001 - on purpose
        ({"until": datetime(2026, 1, 1)}, "aware"),  # noqa: DTZ001 - on purpose
        ({"all": True, "limit": 0}, "limit must be 1 or more"),
        ({"types": ["a*"]}, "can only stand alone"),
    ],
)
async def test_what_can_not_be_meant_is_refused(worked: Shop, filters: Any, problem: str) -> None:
    """No filter at all, and filters that make no sense, are errors that say what to change."""
    before = await all_jobs(worked.hooks)
    refused = (ReplayRefused, ConfigurationError)

    with pytest.raises(refused, match=problem):
        await worked.hooks.plan_replay(**filters)
    with pytest.raises(refused, match=problem):
        await worked.hooks.replay(**filters)
    with pytest.raises(refused, match=problem):
        await worked.hooks.replay(**filters, dry_run=True)
    assert before == await all_jobs(worked.hooks)


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        ({"ids": "evt_1"}, "ids must be a list"),
        ({"limit": 0}, "limit must be 1 or more"),
        ({"type": "a*"}, "can only stand alone"),
        ({"states": "dead"}, "states must be a list"),
        ({"states": ["died"]}, "no job is ever 'died'"),
        ({"since": datetime(2026, 1, 1)}, "since must be aware"),  # noqa: DTZ001 - on purpose
        ({"since": "5h"}, "since must be a datetime, not str"),
        ({"since": NEW_YEAR, "until": NEW_YEAR}, "since must be before until"),
    ],
)
async def test_what_can_not_be_looked_for_is_refused(
    worked: Shop, filters: Any, problem: str
) -> None:
    """Looking checks its filters as replaying does."""
    looks = [worked.hooks.jobs] if "states" in filters else [worked.hooks.events]
    if "since" not in filters and "states" not in filters:
        looks.append(worked.hooks.jobs)
    for look in looks:
        with pytest.raises(ConfigurationError, match=problem):
            async for _ in look(**filters):
                pass
