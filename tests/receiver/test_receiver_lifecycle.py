"""Starting and stopping: by a lifespan, by a request, again and again, in several loops."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from databases import on_every_database
from receiving import (
    Database,
    Server,
    count,
    deliver,
    exchange,
    parse_reply,
    raw,
    rows,
    set_schema,
    signed,
    spoil,
    stored_ids,
    until,
    url,
)
from starlette.applications import Starlette

from animica_hooks import ConfigurationError, Event, Hooks
from animica_hooks.testing import make_event

TESTS = Path(__file__).resolve().parent.parent


IS_FULL = os.environ.get("ANIMICA_HOOKS_TEST_SIZE") == "full"


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# Started by a request.


async def _stop(hooks: Hooks) -> None:
    """Stop what a request has started, as nothing else does."""
    assert hooks._runtime is not None
    await hooks._stop(hooks._runtime)


@on_every_database
async def test_first_requests_start_it_once(
    hooks: Hooks, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a lifespan the first requests, however many at once, start it once, and say so."""
    replies = await asyncio.gather(*(deliver(hooks) for _ in range(20)))
    assert {204} == {reply.status for reply in replies}
    assert 204 == (await deliver(hooks)).status
    assert 21 == count(database, "hooks_events")
    [warning] = _warnings(caplog)
    assert "lifespan=hooks.lifespan" in warning
    await _stop(hooks)


async def test_first_request_given_up(hooks: Hooks, database: Path) -> None:
    """A first request that is cancelled does not take the start with it."""
    first = asyncio.ensure_future(deliver(hooks))
    await asyncio.sleep(0)
    first.cancel()
    assert 204 == (await deliver(hooks)).status
    await asyncio.wait([first])
    assert 1 <= count(database, "hooks_events")
    await _stop(hooks)


def test_mounted_without_a_lifespan(hooks: Hooks, database: Path) -> None:
    """A Mount runs no lifespan of what it mounts: the receiver works all the same, and handles."""

    @hooks.on("*", name="handler")
    async def handler(event: Event) -> None: ...

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        await _stop(hooks)

    with Server(Starlette(routes=hooks.routes("/hooks"), lifespan=lifespan)) as server:
        request = signed()
        request.path = "/hooks"
        assert 204 == parse_reply(exchange(server.port, raw(request))).status
        asyncio.run(
            until(lambda: rows(database, "SELECT id FROM hooks_jobs WHERE state = 'succeeded'"))
        )


@pytest.mark.parametrize("wrong", ["newer schema", "not a database", "no secret"])
async def test_start_that_fails_is_tried_again(
    make_hooks: Callable[..., Hooks], database: Path, wrong: str
) -> None:
    """Each request tries again what could not start, and none leaves a descriptor open."""
    hooks = make_hooks(**({"signing_secret": None} if wrong == "no secret" else {}))
    if wrong == "not a database":
        spoil(database)
    else:
        async with make_hooks().lifespan():
            pass
    if wrong == "newer schema":
        set_schema(database, "9999")
    descriptors = []
    for _ in range(5):
        with pytest.raises(ConfigurationError):
            await deliver(hooks)
        gc.collect()
        descriptors.append(_descriptors())
    assert [descriptors[0]] * 5 == descriptors


async def test_start_that_is_put_right(make_hooks: Callable[..., Hooks], tmp_path: Path) -> None:
    """Once what was wrong is put right, the next request starts it."""
    folder = tmp_path / "later"
    hooks = make_hooks(database_url=url(folder / "hooks.db"))
    with pytest.raises(ConfigurationError, match="does not exist"):
        await deliver(hooks)
    folder.mkdir()
    assert 204 == (await deliver(hooks)).status
    await _stop(hooks)


# Started by a lifespan.


@on_every_database
async def test_lifespan(hooks: Hooks, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """With its lifespan it starts before the first request, and says nothing."""
    async with hooks.lifespan():
        assert 0 == count(database, "hooks_events")
        assert "running=True" in repr(hooks)
        assert 204 == (await deliver(hooks)).status
    assert "running=False" in repr(hooks)
    assert [] == _warnings(caplog)


async def test_lifespan_within_a_lifespan(hooks: Hooks) -> None:
    """An app that runs it twice starts it once; the outer one stops it."""
    async with hooks.lifespan():
        async with hooks.lifespan():
            pass
        assert 204 == (await deliver(hooks)).status


async def test_lifespan_with(hooks: Hooks) -> None:
    """An app's own lifespan is around the receiver's: what it opens outlives the handlers."""
    seen: list[object] = []

    @hooks.on("*", name="handler")
    async def handler(event: Event) -> None:
        seen.append("handling")
        await asyncio.sleep(0.05)
        seen.append("handled")

    @asynccontextmanager
    async def own(app: object) -> AsyncIterator[dict[str, int]]:
        seen.append(app)
        yield {"state": 1}
        seen.append("closed")

    async with hooks.lifespan_with(own)("the app") as state:
        assert {"state": 1} == state
        assert 204 == (await deliver(hooks)).status
        await until(lambda: "handling" in seen)
    assert ["the app", "handling", "handled", "closed"] == seen


async def test_lifespan_protocol(hooks: Hooks) -> None:
    """As an app of its own it speaks the server's lifespan protocol."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive() -> dict[str, str]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await hooks({"type": "lifespan"}, receive, send)
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent


async def test_lifespan_protocol_of_a_wrong_set_up(make_hooks: Callable[..., Hooks]) -> None:
    """Where it can not start, the server is told why."""
    hooks = make_hooks(database_url="oracle://localhost/hooks?password=hunter2hunter2")
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    with pytest.raises(ConfigurationError):
        await hooks({"type": "lifespan"}, receive, send)
    [failed] = sent
    assert "lifespan.startup.failed" == failed["type"]
    assert "oracle://, which is not supported" in failed["message"]
    assert "hunter2" not in failed["message"]


# Again and again.


@on_every_database
async def test_start_and_stop_again_and_again(make_hooks: Callable[..., Hooks]) -> None:
    """Many that start and stop at once on one database: none hangs, none leaves anything open."""
    async with make_hooks().lifespan():
        pass  # what the first one imports and caches is no leak

    async def start_and_stop(times: int) -> None:
        hooks = make_hooks()
        for _ in range(times):
            async with hooks.lifespan():
                assert 204 == (await deliver(hooks)).status

    def left() -> tuple[int, int, int]:
        gc.collect()
        tasks = len(asyncio.all_tasks())
        return _descriptors(), threading.active_count(), tasks

    before = left()
    await asyncio.gather(*(start_and_stop(50 if IS_FULL else 4) for _ in range(10)))
    await until(lambda: left() <= before)


def _run(script: str, database: Path) -> str:
    """Run a script in a process of its own, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DATABASE_URL": url(database), "PYTHONPATH": str(TESTS)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_one_loop_after_another(database: Path) -> None:
    """The same Hooks serves a second event loop after a first one that was never told to stop."""
    script = """
import asyncio
from receiving import deliver
from served import hooks

async def twice():
    print((await deliver(hooks)).status, (await deliver(hooks)).status)

asyncio.run(twice())
asyncio.run(twice())
"""
    assert "204 204\n204 204\n" == _run(script, database)
    assert 4 == count(database, "hooks_events")


def test_test_client_without_a_lifespan(database: Path) -> None:
    """Starlette's TestClient gives each request a loop of its own: each is taken, none hangs."""
    script = """
from starlette.testclient import TestClient
from receiving import signed
import animica_hooks.runtime  # what it brings along takes longer than the ack deadline here
from served import hooks

client = TestClient(hooks)
for _ in range(5):
    request = signed()
    print(client.post("/", content=request.body, headers=request.headers).status_code)
"""
    assert "204\n" * 5 == _run(script, database)
    assert 5 == count(database, "hooks_events")


FORK = """
import asyncio, os
from receiving import deliver, make_event
from served import hooks

async def child():
    async with hooks.lifespan():
        assert (await deliver(hooks, make_event("a.b", id="evt_child"))).status == 204

async def parent():
    async with hooks.lifespan():
        runtime = hooks._runtime
        pid = os.fork()
        if not pid:
            if KEEPS:
                hooks._runtime = runtime
            code = 1
            try:
                assert hooks._runtime is None
                asyncio.run(child())
                code = 0
            finally:
                os._exit(code)
        assert (await deliver(hooks, make_event("a.b", id="evt_parent"))).status == 204
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert (await deliver(hooks, make_event("a.b", id="evt_later"))).status == 204
        print(os.waitstatus_to_exitcode(status), hooks._runtime is runtime)

asyncio.run(parent())
"""


def test_fork(database: Path) -> None:
    """A forked child starts anew and uses nothing of its parent's, who goes on undisturbed."""
    assert "0 True\n" == _run(FORK.replace("KEEPS", "False"), database)
    assert ["evt_child", "evt_later", "evt_parent"] == sorted(stored_ids(database))
    assert [("ok",)] == rows(database, "PRAGMA integrity_check")


def test_fork_would_show_a_shared_runtime(database: Path) -> None:
    """The test above fails for a child that keeps what its parent runs on."""
    assert "1 True\n" == _run(FORK.replace("KEEPS", "True"), database)


# What else uses a Hooks.


async def test_looking_without_receiving(make_hooks: Callable[..., Hooks], database: Path) -> None:
    """What only looks at the database needs neither a lifespan nor a secret."""
    receiver = make_hooks()
    async with receiver.lifespan():
        await deliver(receiver, make_event("a.b", id="evt_1"))
    hooks = Hooks(database_url=url(database), routers=[])
    assert ["evt_1"] == [event.id async for event in hooks.events()]
    assert 0 == (await hooks.stats()).dead


async def test_events_of_two_receivers_of_one_file(
    make_hooks: Callable[..., Hooks], database: Path
) -> None:
    """Two receivers on one file deduplicate together."""
    one, other = make_hooks(), make_hooks()
    body = make_event("a.b", id="evt_1")
    async with one.lifespan(), other.lifespan():
        replies = await asyncio.gather(*(deliver(app, body) for app in (one, other) * 10))
    assert {204} == {reply.status for reply in replies}
    assert ["evt_1"] == stored_ids(database)
    assert [(19,)] == rows(database, "SELECT count FROM hooks_redeliveries")
