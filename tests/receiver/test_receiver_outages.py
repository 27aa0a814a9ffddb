"""A database that is locked, slow, full or gone: 503 in time, and well again without a restart."""

import asyncio
import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from receiving import (
    PATIENCE_S,
    Process,
    Reply,
    Request,
    ask,
    count,
    deliver,
    exchange,
    parse_reply,
    raw,
    rows,
    signed,
    stored_ids,
    until,
    wait_for,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import Event, Hooks
from animica_hooks.store import admission, committer, sqlite
from animica_hooks.testing import make_event

ACK_DEADLINE_S = 0.3


@pytest.fixture
def hooks(make_hooks: Callable[..., Hooks]) -> Hooks:
    return make_hooks(ack_deadline=ACK_DEADLINE_S, shutdown=0.5)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Hold the write lock as a program does that knows nothing of turns."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def _is_refusal(reply: Reply) -> bool:
    expected = (503, "2", "api_error", "unavailable")
    error = reply.error
    return expected == (reply.status, reply.headers["retry-after"], error["type"], error["code"])


async def _recovers(hooks: Hooks) -> None:
    """Deliver until it is taken."""
    async with asyncio.timeout(PATIENCE_S):
        while (await deliver(hooks)).status != 204:
            await asyncio.sleep(0.01)


async def test_locked_by_another_program(hooks: Hooks, database: Path) -> None:
    """While another program holds the write lock, each delivery is refused at the ack deadline."""
    async with hooks.lifespan():
        with _locked(database):
            for _ in range(3):
                began = time.monotonic()
                assert _is_refusal(await deliver(hooks))
                assert time.monotonic() - began < ACK_DEADLINE_S + 2
        await _recovers(hooks)
        assert 204 == (await deliver(hooks)).status


async def test_locked_for_a_moment(make_hooks: Callable[..., Hooks], database: Path) -> None:
    """A lock that is let go of within the ack deadline is waited for."""
    hooks = make_hooks(ack_deadline=10)
    async with hooks.lifespan():
        with _locked(database):
            delivery = asyncio.ensure_future(deliver(hooks))
            await asyncio.wait([delivery], timeout=0.1)
            assert not delivery.done()
        assert 204 == (await delivery).status


async def test_refused_but_stored(hooks: Hooks, database: Path) -> None:
    """What was refused may have been stored: the next try is acknowledged, and handled once."""
    handled = []

    @hooks.on("*", name="handler")
    async def handler(event: Event) -> None:
        handled.append(event.id)

    body = make_event("a.b", id="evt_1")
    async with hooks.lifespan():
        with _locked(database):
            assert _is_refusal(await deliver(hooks, body))
        async with asyncio.timeout(PATIENCE_S):
            while (await deliver(hooks, body)).status != 204:
                await asyncio.sleep(0.01)
        await until(lambda: rows(database, "SELECT id FROM hooks_jobs WHERE state = 'succeeded'"))
    assert ["evt_1"] == stored_ids(database)
    assert ["evt_1"] == handled


async def test_a_row_that_the_database_refuses_harms_no_other(
    hooks: Hooks, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of many at once only that one is answered 503; once the rule is gone it is taken."""
    bodies = [make_event("a.b", {"secret": "CANARY"}, id=f"evt_{n}") for n in range(20)]
    async with hooks.lifespan():
        with closing(sqlite3.connect(database)) as other:
            other.execute(
                "CREATE TRIGGER rule BEFORE INSERT ON hooks_events WHEN NEW.id = 'evt_7'"
                " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
            replies = await asyncio.gather(*[deliver(hooks, body) for body in bodies])
            assert [204] * 7 + [503] + [204] * 12 == [reply.status for reply in replies]
            assert _is_refusal(replies[7])
            assert 200 == (await ask(hooks, Request(b"", [], "GET", "/health/ready"))).status
            assert "evt_7" in caplog.text
            assert "CANARY" not in caplog.text
            other.execute("DROP TRIGGER rule")
            assert 204 == (await deliver(hooks, bodies[7])).status
    assert {f"evt_{n}" for n in range(20)} == set(stored_ids(database))


async def test_unsigned_is_refused_as_ever(hooks: Hooks, database: Path) -> None:
    """A stranger does not learn that the database is down."""
    async with hooks.lifespan():
        with _locked(database):
            request = signed()
            request.body += b" "
            request.replace(b"content-length", b"%d" % len(request.body))
            assert 400 == (await ask(hooks, request)).status


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_handler_that_sits_on_its_transaction(
    hooks: Hooks,
    database: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A handler that keeps its transaction open is named, and deliveries are refused in time."""
    monkeypatch.setattr(committer, "SLOW_WRITER_S", 0.1)
    loop, writing, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    write = text("CREATE TABLE mine (id INTEGER)")

    if kind == "async":

        @hooks.on("slow", name="shop.sits_on_it")
        async def sits(event: Event, session: AsyncSession) -> None:
            await session.execute(write)
            writing.set()
            while not may_end.is_set():
                await asyncio.sleep(0.01)

    else:

        @hooks.on("slow", name="shop.sits_on_it")
        def sits_in_a_thread(event: Event, session: Session) -> None:
            session.execute(write)
            loop.call_soon_threadsafe(writing.set)
            may_end.wait()

    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, make_event("slow"))).status
        await writing.wait()
        began = time.monotonic()
        assert _is_refusal(await deliver(hooks))
        assert time.monotonic() - began < ACK_DEADLINE_S + 2
        assert any(
            "shop.sits_on_it has kept the database's write slot" in r.getMessage()
            for r in caplog.records
        )
        may_end.set()
        await _recovers(hooks)
        await until(lambda: rows(database, "SELECT id FROM hooks_jobs WHERE state = 'succeeded'"))
        assert 0 == count(database, "mine")


async def test_handler_that_only_reads_is_in_nobodys_way(hooks: Hooks) -> None:
    """A handler that has only read through its session keeps nobody waiting."""
    reading, may_end = asyncio.Event(), asyncio.Event()

    @hooks.on("slow", name="reads")
    async def reads(event: Event, session: AsyncSession) -> None:
        await session.execute(text("SELECT count(*) FROM hooks_events"))
        reading.set()
        await may_end.wait()

    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, make_event("slow"))).status
        await reading.wait()
        assert 204 == (await deliver(hooks)).status
        may_end.set()


async def test_stopping_while_a_thread_sits_on_its_transaction(
    make_hooks: Callable[..., Hooks], database: Path
) -> None:
    """A plain function that never ends its transaction does not keep the process from ending."""
    hooks = make_hooks(ack_deadline=ACK_DEADLINE_S, shutdown=0.1)
    loop, writing, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    @hooks.on("slow", name="stuck")
    def stuck(event: Event, session: Session) -> None:
        session.execute(text("CREATE TABLE mine (id INTEGER)"))
        loop.call_soon_threadsafe(writing.set)
        may_end.wait()

    lifespan = hooks.lifespan()
    await lifespan.__aenter__()
    assert 204 == (await deliver(hooks, make_event("slow"))).status
    await writing.wait()
    stopping = asyncio.ensure_future(lifespan.__aexit__(None, None, None))
    stopped, _ = await asyncio.wait([stopping], timeout=3)
    may_end.set()
    await stopping
    assert stopped


def _fill(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the database grow no more, as a full disk does."""
    [(pages,)] = rows(database, "PRAGMA page_count")
    limit = f"PRAGMA max_page_count = {pages}"
    monkeypatch.setattr(sqlite, "_PRAGMAS", (*sqlite._PRAGMAS, limit))


async def test_full(hooks: Hooks, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full database refuses what does not fit, and takes it once there is room."""
    large = make_event("a.b", {"filler": "x" * 500_000}, id="evt_large")
    async with hooks.lifespan():
        pass  # makes the tables
    with monkeypatch.context() as full:
        _fill(database, full)
        async with hooks.lifespan():
            for _ in range(3):
                assert _is_refusal(await deliver(hooks, large))
            assert [] == stored_ids(database)
            full.undo()
            await _recovers(hooks)
            assert 204 == (await deliver(hooks, large)).status
    assert "evt_large" in stored_ids(database)


def test_unwritable(database: Path) -> None:
    """A file that can not be written refuses deliveries; once it can be, they are taken."""
    with Process("hooks", database) as process:

        def post(body: bytes | None = None) -> Reply:
            return parse_reply(exchange(process.port, raw(signed(body))))

        def is_ready() -> bool:
            request = signed()
            request.method, request.path, request.body = "GET", "/health/ready", b""
            request.replace(b"content-length", b"0")
            return 200 == parse_reply(exchange(process.port, raw(request))).status

        assert 204 == post().status
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, unlimited))
        for _ in range(3):
            assert _is_refusal(post())
        assert not is_ready()
        assert 1 == count(database, "hooks_events")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        wait_for(is_ready)
        assert 204 == post().status
        assert 2 == count(database, "hooks_events")
        assert [("ok",)] == rows(database, "PRAGMA integrity_check")


@pytest.mark.parametrize(
    ("module", "limit", "most"),
    [(admission, "MAX_WAITING", 10), (committer, "MAX_WAITING_BYTES", 10 * 1024)],
    ids=["deliveries", "bytes"],
)
async def test_overload(
    hooks: Hooks,
    database: Path,
    module: ModuleType,
    limit: str,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than may wait is refused at once; what waits keeps its place, and is not lost."""
    monkeypatch.setattr(module, limit, most)
    async with hooks.lifespan():
        with _locked(database):
            first = asyncio.ensure_future(deliver(hooks))
            await asyncio.sleep(0.05)  # taken for a commit, it waits no more for one
            began = time.monotonic()
            replies = await asyncio.gather(*(_timed(hooks) for _ in range(30)))
            assert time.monotonic() - began < ACK_DEADLINE_S + 2
            assert _is_refusal(await first)
        assert all(_is_refusal(reply) for _, reply in replies)
        at_once = [seconds for seconds, _ in replies if seconds < ACK_DEADLINE_S / 2]
        assert 20 == len(at_once)
        await _recovers(hooks)


async def _timed(hooks: Hooks) -> tuple[float, Reply]:
    """Deliver an event of 1 KiB; return how long the answer took, and it."""
    event = make_event("a.b", {"filler": ""})
    body = event.replace(b'""', b'"' + b"x" * (1024 - len(event)) + b'"')
    began = time.monotonic()
    reply = await deliver(hooks, body)
    return time.monotonic() - began, reply


async def test_locked_at_the_first_request(hooks: Hooks, database: Path) -> None:
    """A receiver that a request starts refuses it in time, too, while the database is locked."""
    async with hooks.lifespan():
        pass  # makes the tables
    with _locked(database):
        began = time.monotonic()
        assert _is_refusal(await deliver(hooks))
        assert time.monotonic() - began < ACK_DEADLINE_S + 2
    await _recovers(hooks)
    await _stop(hooks)


async def _stop(hooks: Hooks) -> None:
    assert hooks._runtime is not None
    await hooks._stop(hooks._runtime)
