"""The database dies, stands still, comes back while events arrive: nothing acknowledged is lost."""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from databases import MARIADB, POSTGRESQL, Postgres, leave_out
from mariadbkit import OwnMariadb, install, installed
from outagekit import column, execute, insist, make_hooks, post, settled, timed
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks import Event, Hooks
from animica_hooks.errors import StoreUnavailable

ACK_DEADLINE_S = 3.0  # the default
FROZEN_S = 5.0


Server: TypeAlias = Postgres | OwnMariadb


@pytest.fixture(scope="module", params=[POSTGRESQL, MARIADB])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="hooks-server-"))
    server: Server
    if request.param == POSTGRESQL:
        server = Postgres(folder)
        server.start()
    else:
        if not installed():
            leave_out("there is no MariaDB to be killed: install Debian's mariadb-server")
        install(folder / "data")
        server = OwnMariadb(folder / "data")
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hooks(server: Server) -> Hooks:
    """An app whose handler leaves a row for each time that it has succeeded."""
    hooks = make_hooks(server.url, lease=2.0)

    @hooks.on("*", name="effect")
    async def effect(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})

    return hooks


async def fresh(hooks: Hooks) -> None:
    await execute(hooks, "DROP TABLE IF EXISTS effects")
    await execute(hooks, "CREATE TABLE effects (id TEXT)")
    for table in ("hooks_events", "hooks_jobs", "hooks_redeliveries"):
        await execute(hooks, f"DELETE FROM {table}")


async def first_answer(hooks: Hooks, id: str, since: float) -> float:
    """Return the seconds from ``since`` to the first acknowledgement."""
    await insist(hooks, id)
    return time.monotonic() - since


async def everything_is_there(hooks: Hooks, acked: list[str]) -> None:
    await settled(hooks)
    assert {*acked} <= {*await column(hooks, "SELECT id FROM hooks_events")}
    effects = await column(hooks, "SELECT id FROM effects")
    assert {*acked} <= {*effects}
    assert len(effects) == len({*effects})


async def keep_sending(hooks: Hooks, acked: list[str], stop: asyncio.Event) -> None:
    """Deliver event after event, each until it is acknowledged."""
    prefix = id(asyncio.current_task())
    number = 0
    while not stop.is_set():
        number += 1
        event_id = f"evt_{prefix}_{number}"
        if await post(hooks, event_id) == 204:
            acked.append(event_id)
        await asyncio.sleep(0.005)


async def test_killed_and_started_again(hooks: Hooks, server: Server) -> None:
    """After kill -9 of the whole server what was acknowledged is there, and handled once."""
    acked: list[str] = []
    stop = asyncio.Event()
    async with hooks.lifespan():
        await fresh(hooks)
        sending = [asyncio.create_task(keep_sending(hooks, acked, stop)) for _ in range(8)]
        await asyncio.sleep(0.5)
        for _ in range(2):
            before = len(acked)
            await asyncio.to_thread(server.kill)
            status, took = await timed(post(hooks, "evt_down"))
            assert 503 == status
            assert took < ACK_DEADLINE_S + 0.5
            await asyncio.to_thread(server.start)
            assert await first_answer(hooks, "evt_up", time.monotonic()) < 1.0
            await asyncio.sleep(0.3)
            assert before < len(acked)
        stop.set()
        await asyncio.gather(*sending)
        await everything_is_there(hooks, acked)


async def test_standing_still(hooks: Hooks, server: Server) -> None:
    """Senders of a server that does not answer are told so in time, and served when it does."""
    async with hooks.lifespan():
        await fresh(hooks)
        await insist(hooks, "evt_before")
        await settled(hooks)
        server.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            answers = await asyncio.gather(*[timed(post(hooks, f"evt_{n}")) for n in range(5)])
            assert {503} == {status for status, _ in answers}
            assert max(took for _, took in answers) < ACK_DEADLINE_S + 0.5
            await asyncio.sleep(max(0.0, stopped + FROZEN_S - time.monotonic()))
        finally:
            server.signal(signal.SIGCONT)
        assert await first_answer(hooks, "evt_after", time.monotonic()) < 1.0
        await everything_is_there(hooks, ["evt_before", "evt_after"])


async def test_down_at_the_start(server: Server) -> None:
    """An app whose database is down says so at its start, and starts once it is up."""
    server.kill()
    hooks = make_hooks(server.url)

    with pytest.raises(StoreUnavailable, match="nothing listens at"):
        async with hooks.lifespan():
            raise AssertionError("it started")
    server.start()
    async with make_hooks(server.url).lifespan():
        pass
