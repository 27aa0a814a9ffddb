"""Whole apps: what handlers do to their host, and how they let go at a shutdown."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from databases import on_every_database
from dispatchkit import PATIENCE_S, all_jobs, deliver, make_hooks, post, settled, until
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from animica_hooks import Event, Hooks
from animica_hooks.store import committer
from animica_hooks.testing import make_event


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set, it lets the hanging threads of a test go."""
    release = threading.Event()
    yield release
    release.set()


def fastapi_host(hooks: Hooks) -> FastAPI:
    app = FastAPI(lifespan=hooks.lifespan)

    @app.get("/sync")
    def sync() -> str:
        return threading.current_thread().name

    hooks.mount(app, "/webhooks")
    return app


def starlette_host(hooks: Hooks) -> Starlette:
    def sync(request: Request) -> PlainTextResponse:
        return PlainTextResponse(threading.current_thread().name)

    return Starlette(
        routes=[Route("/sync", sync), *hooks.routes("/webhooks")], lifespan=hooks.lifespan
    )


@pytest.mark.parametrize("make_host", [fastapi_host, starlette_host])
async def test_hanging_handlers_leave_the_host_its_threads(
    inbox_url: str, release: threading.Event, make_host: type
) -> None:
    """With 40 plain handlers that hang, the host app's own plain endpoints answer."""
    hooks = make_hooks(inbox_url, threads=40, timeout=PATIENCE_S)
    hanging: list[str] = []

    @hooks.on("*", name="hangs")
    def hangs(event: Event) -> None:
        hanging.append(event.id)
        release.wait(PATIENCE_S)

    app = make_host(hooks)
    async with app.router.lifespan_context(app):
        for n in range(40):
            assert 204 == await post(app, make_event("a.b", id=f"evt_{n}"), path="/webhooks")
        await until(lambda: len(hanging) == 40)
        transport = httpx2.ASGITransport(app=app)
        async with (
            httpx2.AsyncClient(transport=transport, base_url="http://host") as client,
            asyncio.timeout(5),
        ):
            answers = await asyncio.gather(*[client.get("/sync") for _ in range(50)])
            assert {200} == {answer.status_code for answer in answers}
            assert 204 == await post(app, make_event("a.b"), path="/webhooks")
        release.set()


@pytest.fixture
def hooks(inbox_url: str, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    """An app that gives its handlers a short time at a shutdown."""
    monkeypatch.setattr(committer, "CLOSE_S", 0.5)
    return make_hooks(inbox_url, shutdown=0.1)


async def left(hooks: Hooks) -> AsyncIterator[tuple[str, str, int]]:
    """Yield event, state and attempts of the jobs that a process has left."""
    for job in await all_jobs(hooks):
        yield job.event_id, job.state, job.attempts


async def shut_down(hooks: Hooks, running: asyncio.Event | threading.Event) -> float:
    """Deliver an event, shut down while it is handled; return how long that took."""
    async with hooks.lifespan():
        await deliver(hooks, "evt_1")
        await until(running.is_set)
        began = time.monotonic()
    return time.monotonic() - began


@on_every_database
@pytest.mark.parametrize("writes", [False, True])
async def test_a_shutdown_breaks_off_a_long_coroutine(hooks: Hooks, writes: bool) -> None:
    """Its job is given back uncounted, whether or not it was in its transaction."""
    running = asyncio.Event()

    @hooks.on("*", name="long")
    async def long(event: Event, session: AsyncSession) -> None:
        if writes:
            await session.execute(text("CREATE TABLE effects (x INTEGER)"))
        running.set()
        await asyncio.Event().wait()

    took = await shut_down(hooks, running)

    assert took < 5
    assert [("evt_1", "available", 0)] == [job async for job in left(hooks)]


@on_every_database
async def test_a_shutdown_leaves_a_hanging_thread_behind(
    hooks: Hooks, release: threading.Event
) -> None:
    """A plain function can not be stopped; its job is given back uncounted without it."""
    running = threading.Event()

    @hooks.on("*", name="hangs")
    def hangs(event: Event) -> None:
        running.set()
        release.wait(PATIENCE_S)

    took = await shut_down(hooks, running)

    assert took < 5
    assert [("evt_1", "available", 0)] == [job async for job in left(hooks)]


def is_open(database: Path) -> bool:
    """Tell whether this process has a database's file open."""
    found = Path("/proc/self/fd").iterdir()
    return any(path.exists() and path.readlink() == database for path in found)


async def test_a_thread_that_hangs_in_its_transaction_does_not_keep_the_process(
    hooks: Hooks, release: threading.Event, tmp_path: Path
) -> None:
    """Though it holds the write slot the shutdown ends, and nothing is ever half done or left."""
    running = threading.Event()

    @hooks.on("*", name="hangs")
    def hangs(event: Event, session: Session) -> None:
        session.execute(text("CREATE TABLE effects (x INTEGER)"))
        running.set()
        release.wait(PATIENCE_S)

    took = await shut_down(hooks, running)

    assert took < 5
    assert [("evt_1", "leased", 0)] == [job async for job in left(hooks)]
    release.set()

    async def ended() -> bool:
        return [("evt_1", "succeeded", 1)] == [job async for job in left(hooks)]

    await until(ended)
    await until(lambda: not is_open(tmp_path / "inbox.db"))


async def test_a_coroutine_that_can_not_be_cancelled_does_not_keep_the_process(
    hooks: Hooks, tmp_path: Path
) -> None:
    """One that goes on in its transaction is left behind, and leaves nothing when it ends."""
    running, may_end = asyncio.Event(), asyncio.Event()

    @hooks.on("*", name="stubborn")
    async def stubborn(event: Event, session: AsyncSession) -> None:
        await session.execute(text("CREATE TABLE effects (x INTEGER)"))
        running.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                pass

    took = await shut_down(hooks, running)

    assert took < 5
    assert [("evt_1", "leased", 0)] == [job async for job in left(hooks)]
    may_end.set()
    await until(lambda: not is_open(tmp_path / "inbox.db"))


@on_every_database
async def test_while_draining_deliveries_are_refused(hooks: Hooks) -> None:
    """Once the shutdown has begun senders are told to come again, and get in after the restart."""
    running = asyncio.Event()

    @hooks.on("*", name="slow")
    async def slow(event: Event) -> None:
        running.set()
        await asyncio.sleep(0.05)

    async with hooks.lifespan():
        await deliver(hooks, "evt_1")
        await until(running.is_set)
        hooks._begin_draining()
        assert 503 == await post(hooks, make_event("order.paid", id="evt_2"))
    async with hooks.lifespan():
        await deliver(hooks, "evt_2")
        await settled(hooks)

    assert [("evt_1", "succeeded", 1), ("evt_2", "succeeded", 1)] == [
        job async for job in left(hooks)
    ]


@on_every_database
async def test_a_worker_handles_what_a_receiver_stores(inbox_url: str) -> None:
    """One process that only receives and one that only runs handlers make a whole."""
    receiver, worker = make_hooks(inbox_url, dispatch=False), make_hooks(inbox_url)
    ran: list[str] = []
    for hooks in (receiver, worker):

        @hooks.on("*", name="one")
        async def one(event: Event) -> None:
            ran.append(event.id)

    async with receiver.lifespan():
        await deliver(receiver, "evt_1", "evt_2")
        assert [] == ran
        working = asyncio.create_task(worker.worker())
        await until(lambda: ["evt_1", "evt_2"] == ran)
        await deliver(receiver, "evt_3")
        await until(lambda: 3 == len(ran))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    assert [(f"evt_{n}", "succeeded", 1) for n in (1, 2, 3)] == [
        job async for job in left(receiver)
    ]
