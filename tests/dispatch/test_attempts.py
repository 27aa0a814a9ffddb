"""One attempt: whatever a handler does ends only its own, and in time."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from databases import on_every_database
from dispatchkit import AT_ONCE, NOON, ONCE, PATIENCE_S, Bench, Clock, MakeBench, numbered, until
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import Discard, Event, Job, RetryLater, RetryPolicy, Router
from animica_hooks.core.outcome import from_micros
from animica_hooks.dispatch import slots
from animica_hooks.dispatch.runner import failure_of
from animica_hooks.telemetry import Attempted

pytestmark = pytest.mark.usefixtures("quick_poll")

KEY = "sk" + "-0123456789abcdef"


class Odd(BaseException):
    """Derived from what ``except Exception`` does not catch."""


class Unprintable(Exception):
    """Has no message, but an error where it would be."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class Exits(Exception):
    """Ends the process where its message would be, or would."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Obliging(Exception):
    """Looks attributes up, as errors of API clients do, and fails as Python does not expect."""

    def __getattr__(self, name: str) -> object:
        return {}[name]


class Unwritable(Exception):
    """Has a name that no database can hold."""

    __qualname__ = "\ud800"


def recurse() -> None:
    recurse()


def raise_group() -> None:
    raise ExceptionGroup("two", [ValueError("one"), KeyError("two")])


RAISED: list[Any] = [
    ValueError("bad"),
    Odd("odd"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    concurrent.futures.CancelledError(),
    GeneratorExit(),
    StopIteration(),
    StopAsyncIteration(),
    TimeoutError("the handler's own"),
    MemoryError(),
    Unprintable(),
    Exits(),
    BrokenPipeError(32, "gone"),
    Obliging("odd"),
    SyntaxError("odd", ("template", 1, 2, 5)),  # whose text is no text
]
# What a coroutine or a thread can not carry is turned into this by Python itself.
INSTEAD = {"StopIteration": "RuntimeError"}


def name_of(error: BaseException) -> str:
    return INSTEAD.get(type(error).__name__, type(error).__name__)


async def ran_and_lives(bench: Bench, name: str) -> None:
    """See that a poisonous job is dead after its attempts, and that the worker works on."""
    await bench.deliver("evt_bad", type="bad.one")
    await until(lambda: at(bench, "dead", 1))

    [dead] = await bench.jobs(states=["dead"])
    assert (3, 3) == (dead.attempts, dead.failed)
    assert f"{name} (failed attempt 3 of 3)" == dead.reason
    assert [1, 2, 3] == [failure.attempt for failure in await bench.failures(dead.id)]
    assert {name} == {failure.error for failure in await bench.failures(dead.id)}

    await bench.deliver("evt_good", type="good.one")
    await until(lambda: at(bench, "succeeded", 1))


async def at(bench: Bench, state: str, count: int) -> bool:
    return count == await bench.count(state)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_a_coroutine_raises_ends_only_its_attempt(
    start_bench: MakeBench, router: Router, error: BaseException
) -> None:
    """Any exception is a failed attempt; after the last one the job is dead, and others go on."""

    @router.on("bad.*", name="bad")
    async def bad(event: Event) -> None:
        raise error

    @router.on("good.*", name="good")
    async def good(event: Event) -> None: ...

    await ran_and_lives(await start_bench(router, retry=AT_ONCE), name_of(error))


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_a_plain_function_raises_ends_only_its_attempt(
    start_bench: MakeBench, router: Router, error: BaseException
) -> None:
    """The same for a plain function, in whose thread the next one runs."""

    @router.on("bad.*", name="bad")
    def bad(event: Event) -> None:
        raise error

    @router.on("good.*", name="good")
    def good(event: Event) -> None: ...

    await ran_and_lives(await start_bench(router, retry=AT_ONCE, threads=1), name_of(error))


@pytest.mark.parametrize(
    ("function", "name"), [(recurse, "RecursionError"), (raise_group, "ExceptionGroup")]
)
async def test_deep_and_many_errors_end_only_their_attempt(
    start_bench: MakeBench, router: Router, function: Any, name: str
) -> None:
    """An endless recursion and a group of errors are failed attempts like any other."""

    @router.on("bad.*", name="bad")
    async def bad(event: Event) -> None:
        function()

    @router.on("good.*", name="good")
    async def good(event: Event) -> None: ...

    await ran_and_lives(await start_bench(router, retry=AT_ONCE), name)


def test_what_is_kept_of_an_error_can_be_written() -> None:
    """A mark that no database can hold would be tried again for ever, and all else with it."""
    assert "?" == failure_of(Unwritable("\ud800")).error.encode().decode()


@on_every_database
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_is_raised_beside_a_session_rolls_back(
    start_bench: MakeBench, router: Router, error: BaseException
) -> None:
    """With a session open, any exception rolls back, and others can write."""

    @router.on("bad.*", name="bad")
    async def bad(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES (1)"))
        raise error

    @router.on("good.*", name="good")
    async def good(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES (1)"))

    bench = await start_bench(router, retry=AT_ONCE)
    async with bench.store.write("test") as connection:
        await connection.exec_driver_sql("CREATE TABLE effects (x INTEGER UNIQUE)")
    await ran_and_lives(bench, name_of(error))
    async with bench.store.read() as connection:
        assert 1 == await connection.scalar(text("SELECT count(*) FROM effects"))


async def test_what_went_wrong_is_kept(start_bench: MakeBench, router: Router) -> None:
    """A failure has class, message and traceback, bounded, without the keys in them."""

    @router.on("*", name="bad")
    async def bad(event: Event) -> None:
        raise ValueError(f"no answer to {KEY} " + "x" * 2000)

    bench = await start_bench(router)
    await bench.deliver("evt_1")
    await bench.settled()

    [failure] = await bench.failures((await bench.job()).id)
    assert "ValueError" == failure.error
    assert len(failure.message) <= 1000
    assert "test_attempts.py" in failure.traceback
    assert "slots.py" not in failure.traceback  # it begins with the handler
    assert KEY not in failure.message + failure.traceback


async def test_a_plain_function_that_returns_a_coroutine_is_told_so(
    start_bench: MakeBench, router: Router
) -> None:
    """A coroutine that nobody would await is a failed attempt, not a silent success."""

    async def work() -> None: ...

    @router.on("*", name="lazy")
    def lazy(event: Event) -> Any:
        return work()

    bench = await start_bench(router)
    await bench.deliver("evt_1")
    await bench.settled()

    [failure] = await bench.failures((await bench.job(states=["dead"])).id)
    assert "make the handler an async def" in failure.message


@on_every_database
@pytest.mark.parametrize("plain", [False, True])
async def test_a_failed_statement_is_kept_without_its_parameters(
    start_bench: MakeBench, router: Router, plain: bool
) -> None:
    """What a handler writes may be payload, and those who may see a failure may not see that."""
    failing = text("INSERT INTO nowhere VALUES (:of_payload)"), {"of_payload": "canary"}

    async def writes(event: Event, session: AsyncSession) -> None:
        await session.execute(*failing)

    def writes_plainly(event: Event, session: Session) -> None:
        session.execute(*failing)

    router.on("*", name="writes", retry=ONCE)(writes_plainly if plain else writes)
    bench = await start_bench(router)
    await bench.deliver("evt_1")
    await bench.settled()

    [failure] = await bench.failures((await bench.job(states=["dead"])).id)
    assert "nowhere" in failure.message
    assert "canary" not in failure.message + failure.traceback


# Handlers that hang


async def test_a_hanging_coroutine_is_stopped(start_bench: MakeBench, router: Router) -> None:
    """After its timeout it is cancelled, the attempt counts, and its slot is free."""

    @router.on("bad.*", name="bad", timeout=0.05, retry=RetryPolicy(max_attempts=2, base=0))
    async def bad(event: Event) -> None:
        await asyncio.Event().wait()

    @router.on("good.*", name="good")
    async def good(event: Event) -> None: ...

    bench = await start_bench(router, concurrency=1)
    await bench.deliver("evt_bad", type="bad.one")
    await bench.deliver("evt_good", type="good.one")
    await bench.settled()

    [dead, done] = await bench.jobs()
    assert ("dead", 2) == (dead.state, dead.attempts)
    assert "HandlerTimeout (failed attempt 2 of 2)" == dead.reason
    assert "succeeded" == done.state


async def test_a_coroutine_that_swallows_its_cancellation_is_left_behind(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past a grace its attempt has failed without it, its slot is free, its end changes nothing."""
    monkeypatch.setattr(slots, "GRACE_S", 0.05)
    release = asyncio.Event()
    ended = asyncio.Event()

    @router.on("bad.*", name="bad", timeout=0.05)
    async def bad(event: Event) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        ended.set()

    @router.on("good.*", name="good")
    async def good(event: Event) -> None: ...

    bench = await start_bench(router, concurrency=1)
    await bench.deliver("evt_bad", type="bad.one")
    await bench.deliver("evt_good", type="good.one")
    await bench.settled()
    release.set()
    await asyncio.wait_for(ended.wait(), PATIENCE_S)
    await bench.looked()

    assert ["dead", "succeeded"] == [job.state for job in await bench.jobs()]
    assert 1 == bench.counters.counts["attempts.bury"]


async def test_a_coroutine_may_clean_up_when_it_is_stopped(
    start_bench: MakeBench, router: Router
) -> None:
    """A timed-out handler has a grace to end in order; the attempt has failed all the same."""
    cleaned: list[str] = []

    @router.on("*", name="tidy", timeout=0.05)
    async def tidy(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            cleaned.append(event.id)

    bench = await start_bench(router)
    await bench.deliver("evt_1")
    await bench.settled()

    assert ["evt_1"] == cleaned
    assert "HandlerTimeout" in ((await bench.job()).reason or "")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set, it lets the hanging threads of a test go."""
    release = threading.Event()
    yield release
    release.set()


async def test_a_hanging_thread_is_counted_and_its_slot_given_back(
    start_bench: MakeBench, router: Router, release: threading.Event
) -> None:
    """It can not be killed: its attempt has failed, its thread is counted until it ends."""

    @router.on("bad.*", name="bad", timeout=0.05)
    def bad(event: Event) -> None:
        release.wait(PATIENCE_S)

    @router.on("good.*", name="good")
    def good(event: Event) -> None: ...

    bench = await start_bench(router, concurrency=1, threads=1)
    await bench.deliver("evt_bad", type="bad.one")
    await bench.deliver("evt_good", type="good.one")
    await bench.settled()

    assert ["dead", "succeeded"] == [job.state for job in await bench.jobs()]
    assert "HandlerTimeout (failed attempt 1 of 1)" == (await bench.jobs())[0].reason
    assert 1 == bench.worker.slots.stuck_threads
    release.set()
    await until(lambda: bench.worker.slots.stuck_threads == 0)


async def test_too_many_hanging_threads_stop_plain_functions_only(
    start_bench: MakeBench,
    router: Router,
    release: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a cap no more threads are begun; coroutines go on, and so do threads once some end."""
    monkeypatch.setattr(slots, "STUCK_PER_THREAD", 2)

    @router.on("bad.*", name="bad", timeout=0.05)
    def bad(event: Event) -> None:
        release.wait(PATIENCE_S)

    @router.on("good.*", name="plain")
    def plain(event: Event) -> None: ...

    @router.on("good.*", name="coroutine")
    async def coroutine(event: Event) -> None: ...

    bench = await start_bench(router, threads=2)
    await bench.deliver(*numbered(4, "bad"), type="bad.one")
    await until(lambda: bench.worker.slots.stuck_threads == 4)
    await bench.deliver("evt_good", type="good.one")
    await until(lambda: at(bench, "succeeded", 1))

    [done] = await bench.jobs(states=["succeeded"])
    assert "coroutine" == done.handler
    assert "leased" == (await bench.job(handler="plain")).state
    release.set()
    await until(lambda: at(bench, "succeeded", 2))


async def test_a_thread_that_ends_too_late_has_no_effect(
    start_bench: MakeBench, router: Router, release: threading.Event
) -> None:
    """What a timed-out plain function writes afterwards is fenced off; only the retry counts."""
    began: list[int] = []

    @router.on("*", name="slow", timeout=0.1, retry=AT_ONCE)
    def slow(event: Event, session: Session, job: Job) -> None:
        began.append(job.attempt)
        if job.attempt == 1:
            release.wait(PATIENCE_S)
        session.execute(text("INSERT INTO effects VALUES (:n)"), {"n": job.attempt})

    bench = await start_bench(router)
    async with bench.store.write("test") as connection:
        await connection.exec_driver_sql("CREATE TABLE effects (attempt INTEGER)")
    await bench.deliver("evt_1")
    await bench.settled()
    release.set()
    await until(lambda: bench.worker.slots.stuck_threads == 0)

    async with bench.store.read() as connection:
        effects = (await connection.exec_driver_sql("SELECT attempt FROM effects")).all()
    assert [1, 2] == began
    assert [(2,)] == [tuple(row) for row in effects]
    assert ("succeeded", 2, 1) == (
        (await bench.job()).state, (await bench.job()).attempts, (await bench.job()).failed,
    )  # fmt: skip


async def test_no_more_handlers_run_at_once_than_allowed(
    start_bench: MakeBench, router: Router
) -> None:
    """Coroutines and plain functions together keep to the bound, and use it."""
    inside = most = 0
    mutex = threading.Lock()

    def count(more: int) -> None:
        nonlocal inside, most
        with mutex:
            inside += more
            most = max(most, inside)

    @router.on("*", name="coroutine")
    async def coroutine(event: Event) -> None:
        count(1)
        await asyncio.sleep(0.005)
        count(-1)

    @router.on("*", name="plain")
    def plain(event: Event) -> None:
        count(1)
        time.sleep(0.005)
        count(-1)

    bench = await start_bench(router, concurrency=5, threads=3)
    await bench.deliver(*numbered(40))
    await bench.settled()

    assert 80 == await bench.count("succeeded")
    assert 5 == most


# Outcomes that handlers ask for


async def test_discard_cancels_the_job(start_bench: MakeBench, router: Router) -> None:
    """A discarded job ends as cancelled with its reason, counted once, without a failure."""

    @router.on("*", name="picky")
    async def picky(event: Event) -> None:
        raise Discard("not ours")

    bench = await start_bench(router, retry=AT_ONCE)
    await bench.deliver("evt_1")
    await bench.settled()

    job = await bench.job()
    assert ("cancelled", "not ours", 1, 0) == (job.state, job.reason, job.attempts, job.failed)
    assert [] == await bench.failures(job.id)


@pytest.mark.parametrize("reason", ["\ud800 \0 \x1b[2J", "x" * 10_000, f"key {KEY}"])
async def test_no_reason_harms_the_inbox(
    start_bench: MakeBench, router: Router, reason: str
) -> None:
    """Whatever words a handler discards with can be stored, bounded and without keys."""

    @router.on("*", name="picky")
    async def picky(event: Event) -> None:
        raise Discard(reason)

    bench = await start_bench(router)
    await bench.deliver("evt_1")
    await bench.settled()
    await bench.deliver("evt_2")

    [job, _] = await bench.jobs()
    assert "cancelled" == job.state
    assert len(job.reason or "") <= 500
    assert KEY not in (job.reason or "")


@pytest.mark.parametrize(
    ("when", "after"),
    [
        (90, 90),
        (0.25, 0.25),
        (-5, 0),
        (from_micros(NOON) + timedelta(hours=2), 7200),
        (from_micros(NOON) - timedelta(hours=2), -7200),
    ],
)
async def test_retry_later_says_when(
    start_bench: MakeBench, router: Router, clock: Clock, when: Any, after: float
) -> None:
    """The job is due exactly when the handler says, in seconds or as a date, and did not fail."""
    attempts: list[int] = []

    @router.on("*", name="patient")
    async def patient(event: Event, job: Job) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            raise RetryLater(when)

    bench = await start_bench(router, clock=clock, retry=ONCE)
    await bench.deliver("evt_1")
    if after > 0:
        assert from_micros(NOON) + timedelta(seconds=after) == (await bench.attempted(1)).due_at
        clock.advance(after - 0.001)
        await bench.looked()
        assert [1] == attempts
        clock.advance(0.001)
        await bench.looked()

    await bench.settled()
    job = await bench.job()
    assert ("succeeded", 2, 0) == (job.state, job.attempts, job.failed)


async def test_retry_later_ends_with_the_maximum_of_age(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """A job that is put off again and again is dead once the next attempt would be too late."""
    policy = RetryPolicy(max_attempts=1, max_age=250)

    @router.on("*", name="never", retry=policy)
    async def never(event: Event) -> None:
        raise RetryLater(100)

    bench = await start_bench(router, clock=clock)
    await bench.deliver("evt_1")
    for attempts in (1, 2):
        await bench.attempted(attempts)
        clock.advance(100)
        await bench.looked()
    await bench.settled()

    job = await bench.job()
    assert ("dead", 3, 0) == (job.state, job.attempts, job.failed)
    assert "max_age" in (job.reason or "")


# Retries


async def test_the_schedule_of_retries_is_exact(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """Each delay is the backoff's bound times what was drawn, and not a microsecond less."""
    policy = RetryPolicy(max_attempts=6, base=10, factor=3, max_delay=200)
    drawn = [0.5, 0.1, 0.999, 0.25, 0.75]
    draws = iter([0.5, 0.1, 0.999, 0.25, 0.75, 0.0])

    @router.on("*", name="bad", retry=policy)
    async def bad(event: Event) -> None:
        raise ValueError

    bench = await start_bench(router, clock=clock, rand=lambda: next(draws))
    await bench.deliver("evt_1")
    delays = []
    for attempt in range(1, 6):
        job = await bench.attempted(attempt)
        assert job.due_at is not None
        assert attempt == job.failed
        delays.append((job.due_at - from_micros(clock.micros)).total_seconds())
        clock.advance(delays[-1] - 0.000_001)
        await bench.looked()
        assert attempt == (await bench.job()).attempts
        clock.advance(0.000_001)
        await bench.looked()
    await bench.settled()

    bounds = [10, 30, 90, 200, 200]
    assert [bound * rand for bound, rand in zip(bounds, drawn, strict=True)] == delays
    assert "ValueError (failed attempt 6 of 6)" == (await bench.job(states=["dead"])).reason


async def test_without_jitter_the_delay_is_the_bound(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """A policy without jitter waits exactly the backoff."""
    policy = RetryPolicy(max_attempts=2, base=7, jitter=False)

    @router.on("*", name="bad", retry=policy)
    async def bad(event: Event) -> None:
        raise ValueError

    bench = await start_bench(router, clock=clock, rand=lambda: 0.1)
    await bench.deliver("evt_1")

    assert from_micros(NOON) + timedelta(seconds=7) == (await bench.attempted(1)).due_at


async def test_no_attempt_is_planned_beyond_the_maximum_of_age(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """A failed job that could only be tried again when it is too old is dead at once."""
    policy = RetryPolicy(max_attempts=100, base=60, jitter=False, max_age=100)

    @router.on("*", name="bad", retry=policy)
    async def bad(event: Event) -> None:
        raise ValueError

    bench = await start_bench(router, clock=clock)
    await bench.deliver("evt_1")
    await bench.attempted(1)
    clock.advance(60)
    await bench.looked()
    await bench.settled()

    job = await bench.job()
    assert ("dead", 2) == (job.state, job.attempts)
    assert "ValueError (the next attempt would be past its max_age)" == job.reason


async def test_each_handler_of_an_event_has_its_own_job(
    start_bench: MakeBench, router: Router
) -> None:
    """One that fails neither repeats nor stops the others."""
    ran: list[str] = []

    @router.on("*", name="first")
    async def first(event: Event) -> None:
        ran.append("first")

    @router.on("*", name="second")
    async def second(event: Event) -> None:
        ran.append("second")
        raise ValueError

    @router.on("*", name="third")
    def third(event: Event) -> None:
        ran.append("third")

    bench = await start_bench(router, retry=AT_ONCE)
    await bench.deliver("evt_1")
    await bench.settled()

    assert ["first", "second", "second", "second", "third"] == sorted(ran)
    states = {job.handler: job.state for job in await bench.jobs()}
    assert {"first": "succeeded", "second": "dead", "third": "succeeded"} == states


# What a handler is told


async def test_a_handler_knows_its_job(start_bench: MakeBench, router: Router) -> None:
    """Attempts are numbered from 1, and the idempotency key is the same on each of them."""
    told: list[Job] = []

    @router.on("*", name="one")
    async def one(event: Event, job: Job) -> None:
        told.append(job)
        raise ValueError

    @router.on("*", name="two")
    def two(event: Event, job: Job) -> None:
        told.append(job)
        raise ValueError

    bench = await start_bench(router, retry=AT_ONCE)
    await bench.deliver("evt_1", "evt_2")
    await bench.settled()

    for name in ("one", "two"):
        for event_id in ("evt_1", "evt_2"):
            jobs = [job for job in told if (job.handler, job.event_id) == (name, event_id)]
            assert [1, 2, 3] == sorted(job.attempt for job in jobs)
            assert 1 == len({job.idempotency_key for job in jobs})
            assert 1 == len({job.id for job in jobs})
    assert 4 == len({job.idempotency_key for job in told})


async def test_a_renamed_handler_keeps_the_keys_of_its_jobs(start_bench: MakeBench) -> None:
    """A job that is tried again under another name goes on with its idempotency key."""
    told: list[Job] = []

    async def handle(event: Event, job: Job) -> None:
        told.append(job)
        raise ValueError

    later = RetryPolicy(max_attempts=3, base=1.0, factor=1, jitter=False)
    for attempt, (name, *aliases) in enumerate([("a",), ("b", "a"), ("c", "b", "a")], start=1):
        router = Router()
        router.on("*", name=name, aliases=aliases)(handle)
        bench = await start_bench(router, retry=later)
        if attempt == 1:
            await bench.deliver("evt_1")
        await until(lambda attempt=attempt: len(told) == attempt)  # type: ignore[misc]
        await bench.stop()

    assert ["a", "b", "c"] == [job.handler for job in told]
    assert 1 == len({job.idempotency_key for job in told})


class AsTypedDict(TypedDict):
    """The data of an order."""

    amount: int


class AsStruct(msgspec.Struct):
    """The same."""

    amount: int


@dataclass
class AsDataclass:
    """The same."""

    amount: int


class AsModel(pydantic.BaseModel):
    """The same."""

    amount: int


@pytest.mark.parametrize("shape", [AsTypedDict, AsStruct, AsDataclass, AsModel])
async def test_data_that_does_not_fit_is_dead_at_once(
    start_bench: MakeBench, router: Router, shape: Any
) -> None:
    """It is not tried again; the path is named, and the handler where the log says where."""
    amounts: list[int] = []

    async def take(event: Any) -> None:
        amounts.append(event.data["amount"] if isinstance(event.data, dict) else event.data.amount)

    take.__annotations__["event"] = Event[shape]
    router.on("*", name="typed")(take)
    bench = await start_bench(router, retry=AT_ONCE)
    await bench.deliver("evt_fits", data={"amount": 3})
    await bench.deliver("evt_misfit", data={"amount": "a secret"})
    await bench.settled()

    [fits, misfit] = await bench.jobs()
    assert [3] == amounts
    assert "succeeded" == fits.state
    assert ("dead", "EventMisfit: $.amount", 1) == (misfit.state, misfit.reason, misfit.attempts)
    [failure] = await bench.failures(misfit.id)
    assert "$.amount" in failure.message
    assert "animica_hooks/" not in failure.traceback  # not one frame of ours, before the handler
    assert "a secret" not in failure.message + failure.traceback
    [error] = [
        ended.error
        for seen in bench.seen
        if isinstance(seen, Attempted)
        for ended in seen.attempts
        if ended.error
    ]
    assert f"EventMisfit at {__file__}:{take.__code__.co_firstlineno}" == error
