"""What a person does: try a job again, let a delivery out of the quarantine, look at numbers."""

import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from dispatchkit import (
    PATIENCE_S,
    Clock,
    MakeBench,
    all_jobs,
    deliver,
    make_hooks,
    post,
    settled,
    until,
)

from animica_hooks import Discard, Event, Hooks, Job, RetryLater, RetryPolicy, Router
from animica_hooks.admin import Admin
from animica_hooks.errors import MalformedEvent

pytestmark = pytest.mark.usefixtures("quick_poll")


class Handled:
    """What the handlers of a test were told, and how they end."""

    def __init__(self) -> None:
        self.error: Exception | None = ValueError("broken")
        self.jobs: list[Job] = []

    @property
    def ids(self) -> list[str]:
        return [job.event_id for job in self.jobs]


@pytest.fixture
def handled() -> Handled:
    return Handled()


@pytest.fixture
async def hooks(inbox_url: str, handled: Handled) -> AsyncIterator[Hooks]:
    hooks = make_hooks(inbox_url)

    @hooks.on("order.*", name="ships")
    async def ships(event: Event, job: Job) -> None:
        handled.jobs.append(job)
        if handled.error:
            raise handled.error

    async with hooks.lifespan():
        yield hooks


@pytest.fixture
def admin(hooks: Hooks) -> Admin:
    assert hooks._runtime is not None
    return hooks._runtime.admin


# Trying again


@pytest.mark.parametrize("error", [ValueError("broken"), Discard("no")])
async def test_a_job_that_ended_badly_can_be_tried_again(
    hooks: Hooks, handled: Handled, error: Exception
) -> None:
    """A dead or cancelled job is run once more, as the same job with its next attempt."""
    handled.error = error
    await deliver(hooks, "evt_1")
    await settled(hooks)
    [job] = await all_jobs(hooks)
    handled.error = None

    assert await hooks.retry_job(job.id) is True
    await settled(hooks)

    [again] = await all_jobs(hooks)
    assert (job.id, "succeeded", 2, 0) == (again.id, again.state, again.attempts, again.failed)
    assert again.reason is None
    assert [1, 2] == [told.attempt for told in handled.jobs]


async def test_a_job_that_did_not_end_badly_is_left_alone(hooks: Hooks, handled: Handled) -> None:
    """What has succeeded, or is not there, can not be tried again."""
    handled.error = None
    await deliver(hooks, "evt_1")
    await settled(hooks)
    [job] = await all_jobs(hooks)

    assert await hooks.retry_job(job.id) is False
    assert await hooks.retry_job(job.id + 1) is False
    assert [job] == await all_jobs(hooks)


async def test_a_job_that_waits_is_run_now(
    inbox_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A person who has mended the cause need not wait for what the log says."""
    hooks = make_hooks(inbox_url, retry=RetryPolicy(max_attempts=3, base=3600))
    attempts: list[int] = []

    @hooks.on("*", name="broken once")
    async def broken_once(event: Event, job: Job) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            raise RetryLater(3600)

    async with hooks.lifespan():
        await deliver(hooks, "evt_1")

        async def waits() -> bool:
            return [("available", 1)] == [(j.state, j.attempts) for j in await all_jobs(hooks)]

        await until(waits)
        await until(lambda: "the job is tried again in 1.0 h: RetryLater" in caplog.text)
        [job] = await all_jobs(hooks)
        assert await hooks.retry_job(job.id) is True
        await settled(hooks)
    assert [1, 2] == attempts


async def test_a_job_tried_again_has_all_its_attempts(hooks: Hooks, handled: Handled) -> None:
    """It fails as often as its policy allows before it is dead again."""
    await deliver(hooks, "evt_1")
    await settled(hooks)
    [job] = await all_jobs(hooks)
    await hooks.retry_job(job.id)
    await settled(hooks)

    [again] = await all_jobs(hooks)
    assert ("dead", 2, 1) == (again.state, again.attempts, again.failed)


async def test_an_old_job_tried_again_has_all_its_attempts(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """A job that is tried again after its maximum of age is not dead with the next failure."""
    attempts: list[int] = []

    @router.on("*", name="bad", retry=RetryPolicy(max_attempts=3, base=0, max_age=60))
    async def bad(event: Event, job: Job) -> None:
        attempts.append(job.attempt)
        raise ValueError

    bench = await start_bench(router, clock=clock)
    await bench.deliver("evt_1")
    await bench.settled()
    assert [1, 2, 3] == attempts
    clock.advance(timedelta(days=7).total_seconds())
    await Admin(bench.store).retry_job((await bench.job()).id)
    await bench.settled()

    assert [1, 2, 3, 4, 5, 6] == attempts


# The quarantine


async def quarantine(hooks: Hooks, admin: Admin, body: bytes) -> int:
    """Deliver a body that is no event; return its place in the quarantine."""
    assert 204 == await post(hooks, body)
    return max([held.id async for held in admin.quarantined()])


async def test_a_released_delivery_is_handled(hooks: Hooks, admin: Admin, handled: Handled) -> None:
    """With the id that its body lacks a delivery becomes an event like any other."""
    handled.error = None
    body = b'{"type": "order.paid", "data": {"amount": 5}}'
    held = await quarantine(hooks, admin, body)

    assert "new" == await admin.release(held, event_id="evt_by_hand")
    await until(lambda: ["evt_by_hand"] == handled.ids)
    await settled(hooks)

    assert [] == [each async for each in admin.quarantined()]
    [event] = [event async for event in hooks.events()]
    assert ("evt_by_hand", "order.paid") == (event.id, event.type)
    assert body == (await admin.event(event.seq)).body


async def test_a_released_delivery_goes_to_the_handlers_of_its_type(
    hooks: Hooks, admin: Admin
) -> None:
    """Id and type given by hand decide, and the body may be anything."""
    held = await quarantine(hooks, admin, b"\xff\x00 not JSON at all")

    assert "new" == await admin.release(held, event_id="evt_1", type="refund.made")

    assert [] == await all_jobs(hooks)
    assert ["refund.made"] == [event.type async for event in hooks.events()]


@pytest.mark.parametrize(
    ("body", "given", "problem"),
    [
        (b"not JSON", {}, "give both an id and a type"),
        (b"not JSON", {"event_id": "evt_1"}, "give both an id and a type"),
        (b'{"type": "a"}', {}, "has no id"),
        (b'{"id": "evt_1"}', {}, "has no type"),
        (b'{"type": "a"}', {"event_id": "\u00e9vt"}, "printable ASCII"),
        (b'{"type": "a"}', {"event_id": ""}, "has no id"),
    ],
)
async def test_what_is_still_not_usable_stays(
    hooks: Hooks, admin: Admin, body: bytes, given: dict[str, str], problem: str
) -> None:
    """Without a usable id and type nothing is released, and nothing lost."""
    held = await quarantine(hooks, admin, body)

    with pytest.raises(MalformedEvent, match=problem):
        await admin.release(held, **given)

    assert [held] == [each.id async for each in admin.quarantined()]
    stored = await admin.quarantined_content(held)
    assert stored is not None
    assert body == stored[0]


async def test_releasing_what_is_stored_already_is_a_duplicate(hooks: Hooks, admin: Admin) -> None:
    """An id that the inbox has is not handled twice, however it comes in."""
    await deliver(hooks, "evt_1")
    await settled(hooks)
    held = await quarantine(hooks, admin, b'{"type": "order.paid"}')

    assert "conflict" == await admin.release(held, event_id="evt_1")
    assert 1 == len(await all_jobs(hooks))
    assert [] == [each async for each in admin.quarantined()]


async def test_a_discarded_delivery_is_gone(hooks: Hooks, admin: Admin) -> None:
    """What is discarded is deleted, once."""
    held = await quarantine(hooks, admin, b"not JSON")

    assert await admin.discard(held) is True
    assert await admin.discard(held) is False
    assert await admin.release(held, event_id="evt_1", type="a") is None
    assert await admin.quarantined_content(held) is None


# Numbers


async def test_stats_tell_what_waits_and_what_ended_badly(
    hooks: Hooks, admin: Admin, handled: Handled
) -> None:
    """Dead jobs, quarantined deliveries and this process's counts are in the numbers."""
    await deliver(hooks, "evt_1", "evt_2")
    await deliver(hooks, "evt_2", type="order.paid", data=None)
    await quarantine(hooks, admin, b"not JSON")
    await settled(hooks)
    stats = await hooks.stats()

    assert (0, 0, 2, 1, 0, 0) == (
        stats.available, stats.leased, stats.dead, stats.quarantined, stats.held,
        stats.stuck_threads,
    )  # fmt: skip
    assert 2 == stats.counts["deliveries.new"]
    assert 2 == stats.counts["attempts.bury"]


async def test_stats_show_stuck_threads(inbox_url: str) -> None:
    """A plain function that hangs past its timeout is seen, until it ends."""
    release = threading.Event()
    hooks = make_hooks(inbox_url, timeout=0.05)

    @hooks.on("*", name="hangs")
    def hangs(event: Event) -> None:
        release.wait(PATIENCE_S)

    async with hooks.lifespan():
        await deliver(hooks, "evt_1", "evt_2")
        await settled(hooks)
        assert 2 == (await hooks.stats()).stuck_threads
        release.set()

        async def none() -> bool:
            return (await hooks.stats()).stuck_threads == 0

        await until(none)
