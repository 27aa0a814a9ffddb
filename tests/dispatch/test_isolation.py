"""Handlers that share a task do not notice: nothing of one reaches another."""

import asyncio
import contextvars
import threading

from dispatchkit import MakeBench, numbered

from animica_hooks import Event, Router
from animica_hooks.dispatch.coroutines import InOwnContext

_seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


async def test_what_a_handler_sets_in_its_context_stays_there(
    start_bench: MakeBench, router: Router
) -> None:
    """A context variable has its default in each handler, and its value after each wait."""
    before: list[str] = []
    after: list[str] = []

    @router.on("*", name="quick")
    async def quick(event: Event) -> None:
        before.append(_seen.get())
        _seen.set(event.id)

    @router.on("*", name="waits")
    async def waits(event: Event) -> None:
        before.append(_seen.get())
        _seen.set(event.id)
        await asyncio.sleep(0)
        after.append(_seen.get())

    bench = await start_bench(router)
    await bench.deliver(*numbered(20))
    await bench.settled()

    assert ["nothing"] * 40 == before
    assert sorted(numbered(20)) == sorted(after)


async def test_a_handler_that_has_waited_shares_its_task_with_none(
    start_bench: MakeBench, router: Router
) -> None:
    """What is kept by task, as scoped sessions are, is kept apart."""
    tasks: list[asyncio.Task[object] | None] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    bench = await start_bench(router, concurrency=2)
    await bench.deliver(*numbered(20))
    await bench.settled()

    assert 20 == len(set(tasks))


async def test_a_handler_that_cancels_its_own_task_harms_no_other(
    start_bench: MakeBench, router: Router
) -> None:
    """A cancellation that a handler leaves behind is not delivered to the next one."""
    ended: list[str] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        if event.id == "evt_0002":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return
        await asyncio.sleep(0)
        ended.append(event.id)

    bench = await start_bench(router)
    await bench.deliver(*numbered(5))
    await bench.settled()

    assert ["evt_0000", "evt_0001", "evt_0003", "evt_0004"] == sorted(ended)


async def test_one_that_waits_keeps_no_other_waiting(
    start_bench: MakeBench, router: Router
) -> None:
    """While a handler waits those behind it run; only the others can let it go on."""
    released = asyncio.Event()
    ran: list[str] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        if event.id == "evt_0001":
            await released.wait()
        ran.append(event.id)
        if len(ran) == 9:
            released.set()

    bench = await start_bench(router)
    await bench.deliver(*numbered(10))
    await bench.settled()

    assert ran[-1] == "evt_0001"
    assert set(numbered(10)) == set(ran)


async def test_the_loop_goes_round_between_handlers_that_never_wait(
    start_bench: MakeBench, router: Router
) -> None:
    """No more of them run in one go than may run at once."""
    rounds = 0
    ticking = True
    seen: list[int] = []

    def tick() -> None:
        nonlocal rounds
        rounds += 1
        if ticking:
            asyncio.get_running_loop().call_soon(tick)

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        seen.append(rounds)

    bench = await start_bench(router, concurrency=4)
    tick()
    await bench.deliver(*numbered(32))
    await bench.settled()
    ticking = False

    assert max(seen.count(which) for which in seen) <= 4


async def test_plain_functions_are_not_kept_waiting_by_coroutines(
    start_bench: MakeBench, router: Router
) -> None:
    """With more coroutines queued than may run at once, plain functions get their threads."""
    let_go = asyncio.Event()
    ran = threading.Event()

    @router.on("*", name="coroutine")
    async def coroutine(event: Event) -> None:
        await let_go.wait()

    @router.on("*", name="function")
    def function(event: Event) -> None:
        ran.set()

    bench = await start_bench(router, concurrency=4)
    await bench.deliver(*numbered(12))
    assert await asyncio.to_thread(ran.wait, 30)
    let_go.set()
    await bench.settled()


async def test_an_abandoned_coroutine_is_closed_in_its_context() -> None:
    """Where the loop goes away a handler's clean-up still finds what it had set."""
    found: list[str] = []

    async def handler() -> None:
        _seen.set("mine")
        try:
            await asyncio.Event().wait()
        finally:
            found.append(_seen.get())

    waiting = InOwnContext(handler(), lambda: None).__await__()
    next(waiting)
    waiting.close()

    assert ["mine"] == found
