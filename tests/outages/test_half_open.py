"""Connections to a database that swallow, cut or delay what is sent over them."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from databases import POSTGRESQL, on_every_server
from outagekit import (
    PATIENCE_S,
    column,
    execute,
    insist,
    make_hooks,
    post,
    settled,
    through,
    timed,
    until,
)
from proxy import Proxy
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import Event, Hooks
from animica_hooks.store import server

pytestmark = on_every_server
ACK_DEADLINE_S = 3.0  # the default


@pytest.fixture
async def proxy(inbox_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(make_url(inbox_url).port or 0) as proxy:
        yield proxy


@pytest.fixture
def url(inbox_url: str, proxy: Proxy) -> str:
    """The database by way of the proxy."""
    return through(inbox_url, proxy.port).render_as_string(hide_password=False)


@pytest.fixture
def hooks(url: str) -> Hooks:
    hooks = make_hooks(url, lease=2.0)

    @hooks.on("*", name="effect")
    async def effect(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})

    return hooks


async def test_a_database_that_swallows_everything(hooks: Hooks, proxy: Proxy) -> None:
    """Over connections that lead nowhere senders get 503 in time; new ones are made soon."""
    async with hooks.lifespan():
        await execute(hooks, "CREATE TABLE effects (id VARCHAR(40))")
        await insist(hooks, "evt_before")
        await settled(hooks)
        proxy.swallows = True
        answers = await asyncio.gather(*[timed(post(hooks, f"evt_{n}")) for n in range(5)])
        assert {503} == {status for status, _ in answers}
        assert max(took for _, took in answers) < ACK_DEADLINE_S + 0.5
        await asyncio.sleep(server.ANSWER_S - ACK_DEADLINE_S)

        # The connections there are stay dead for ever, those of the pools among them.
        proxy.forget()
        proxy.swallows = False
        (_, took) = await timed(insist(hooks, "evt_after"))
        assert took < server.CONNECT_S + 1
        await settled(hooks)
        ids = await column(hooks, "SELECT id FROM effects ORDER BY id")
        assert {"evt_before", "evt_after"} <= {*ids}
        assert len(ids) == len({*ids})


async def test_a_slow_line(hooks: Hooks, proxy: Proxy, database_kind: str) -> None:
    """Where each round trip takes its time, events that wait share one."""
    async with hooks.lifespan():
        await execute(hooks, "CREATE TABLE effects (id VARCHAR(40))")
        # A batch is one round trip in PostgreSQL, and a dozen in MariaDB.
        proxy.delay = 0.1 if database_kind == POSTGRESQL else 0.02
        async with asyncio.timeout(ACK_DEADLINE_S):
            statuses = await asyncio.gather(*[post(hooks, f"evt_{n}") for n in range(100)])
        assert [204] * 100 == statuses
        proxy.delay = 0
        await settled(hooks)
        assert [100] == await column(hooks, "SELECT count(*) FROM effects")


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
@pytest.mark.parametrize("arrives", [False, True], ids=["request lost", "answer lost"])
async def test_cut_in_a_handlers_commit(url: str, proxy: Proxy, kind: str, arrives: bool) -> None:
    """Whether or not the COMMIT got through, the effect is there once."""
    hooks = make_hooks(url, lease=2.0)
    ran: list[str] = []
    cuts: list[bytes] = []
    loop = asyncio.get_running_loop()

    def cut_at_commit(data: bytes) -> bool:
        if not ran or cuts or b"COMMIT" not in data.upper():
            return True
        cuts.append(data)
        if arrives:
            proxy.swallow_answers = True
            loop.call_later(0.2, proxy.cut)
        else:
            proxy.cut()
        return arrives

    if kind == "coroutine":

        @hooks.on("*", name="effect")
        async def effect(event: Event, session: AsyncSession) -> None:
            await session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})
            ran.append(event.id)
    else:

        @hooks.on("*", name="effect")
        def plain(event: Event, session: Session) -> None:
            session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})
            ran.append(event.id)

    async with hooks.lifespan():
        await execute(hooks, "CREATE TABLE effects (id VARCHAR(40))")
        proxy.passes = cut_at_commit
        await insist(hooks, "evt_1")
        await until(lambda: bool(cuts))
        await settled(hooks)
        [job] = [job async for job in hooks.jobs()]
        assert ["evt_1"] == await column(hooks, "SELECT id FROM effects")
    assert ("succeeded", 1, 0) == (job.state, job.attempts, job.failed)
    assert (1 if arrives else 2) == len(ran)


async def test_handlers_that_hold_every_connection_do_not_hinder_receiving(inbox_url: str) -> None:
    """The inbox has a connection of its own, whatever handlers do with theirs."""
    hooks = make_hooks(inbox_url, concurrency=4, threads=2)
    release, held = threading.Event(), [0]
    free = asyncio.Event()

    @hooks.on("*", name="coroutine")
    async def coroutine(event: Event, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        held[0] += 1
        await free.wait()

    @hooks.on("*", name="plain")
    def plain(event: Event, session: Session) -> None:
        session.execute(text("SELECT 1"))
        held[0] += 1
        release.wait(PATIENCE_S)

    async with hooks.lifespan():
        await asyncio.gather(*[insist(hooks, f"evt_{n}") for n in range(20)])
        await until(lambda: held[0] >= 4)
        answers = [await timed(post(hooks, f"evt_more_{n}")) for n in range(10)]
        assert {204} == {status for status, _ in answers}
        assert max(took for _, took in answers) < 1.0
        free.set()
        release.set()
        await settled(hooks)
