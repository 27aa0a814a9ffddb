"""PostgreSQL's notifications are hints: too few delay nothing for long, too many nothing at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from databases import POSTGRESQL, engine_of
from outagekit import insist, make_hooks, timed, until
from sqlalchemy import Engine, text

from animica_hooks import Event, Hooks
from animica_hooks.dispatch import worker as worker_module
from animica_hooks.store import inbox
from animica_hooks.store.postgres_sql import CHANNEL

pytestmark = pytest.mark.parametrize("database_kind", [POSTGRESQL], indirect=True)
STORM = 5_000
ALLOWED_S = 3.0  # to a busy machine, beyond a poll


@pytest.fixture
def engine(inbox_url: str, database_kind: str) -> Iterator[Engine]:
    engine = engine_of(database_kind, inbox_url).execution_options(isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def done() -> dict[str, float]:
    return {}


@pytest.fixture
async def receiver(inbox_url: str, done: dict[str, float]) -> AsyncIterator[Hooks]:
    """A process that only receives; another one runs the handler, which says when."""
    receiver, worker = make_hooks(inbox_url, dispatch=False), make_hooks(inbox_url)
    for hooks in (receiver, worker):

        @hooks.on("*", name="one")
        async def one(event: Event) -> None:
            done[event.id] = time.monotonic()

    async with receiver.lifespan(), worker.lifespan():
        yield receiver


async def delay(receiver: Hooks, done: dict[str, float], id: str) -> float:
    """Return the seconds from an acknowledgement to the handler in the other process."""
    await insist(receiver, id)
    acked = time.monotonic()
    await until(lambda: id in done)
    return done[id] - acked


async def test_without_notifications_the_poll_finds_what_is_due(
    receiver: Hooks, engine: Engine, done: dict[str, float]
) -> None:
    """While every listener is ended again and again, events are handled within a poll."""
    enough = asyncio.Event()
    ending = asyncio.create_task(keep_ending_listeners(engine, enough))
    try:
        delays = [await delay(receiver, done, f"evt_{n}") for n in range(5)]
    finally:
        enough.set()
        await ending  # cancelled, it would leave its thread with a connection that nobody closes
    assert max(delays) < worker_module.POLL_S + ALLOWED_S


async def keep_ending_listeners(engine: Engine, enough: asyncio.Event) -> None:
    def end() -> int:
        with engine.connect() as connection:
            return connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    " AND query LIKE 'LISTEN%'"
                )
            ).rowcount

    while not enough.is_set():
        await asyncio.to_thread(end)
        await asyncio.sleep(0.005)


async def test_a_storm_of_notifications_keeps_nobody_busy(
    receiver: Hooks, engine: Engine, done: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are the worker looks now and then; fresh events are handled at once."""
    looks = 0
    due = inbox.due

    async def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return await due(*arguments)

    monkeypatch.setattr(inbox, "due", counted)
    storming = asyncio.create_task(asyncio.to_thread(storm, engine))
    delays, answers = [], []
    while not storming.done():
        _, took = await timed(insist(receiver, f"evt_{len(delays)}"))
        answers.append(took)
        delays.append(await delay(receiver, done, f"evt_{len(delays)}_more"))
    await storming
    assert looks < STORM / 20
    assert max(answers) < ALLOWED_S
    assert max(delays) < ALLOWED_S

    # And it is over with the last of them.
    await asyncio.sleep(0.2)
    looks = 0
    await asyncio.sleep(1)
    assert looks <= 3


def storm(engine: Engine) -> None:
    """Notify as many times as there may be jobs, one commit each and then all in one."""
    with engine.connect() as connection:
        for n in range(STORM // 10):
            connection.execute(text(f"NOTIFY {CHANNEL}, '{n}'"))
        connection.execute(
            text(f"SELECT pg_notify('{CHANNEL}', n::text) FROM generate_series(1, {STORM}) n")
        )
