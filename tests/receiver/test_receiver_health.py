"""The health endpoints."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from receiving import PATIENCE_S, Reply, Request, ask, deliver

from animica_hooks import Event, Hooks
from animica_hooks.store import sqlite

OK = {"status": "ok", "reasons": []}


async def _get(hooks: Hooks, path: str, method: str = "GET") -> Reply:
    return await ask(hooks, Request(b"", [], method=method, path=path))


@pytest.mark.parametrize("path", ["/health", "/health/", "/health/live", "/health/ready"])
async def test_healthy(hooks: Hooks, path: str) -> None:
    """A receiver that runs is alive and ready."""
    async with hooks.lifespan():
        reply = await _get(hooks, path)
    assert (200, OK) == (reply.status, json.loads(reply.body))
    assert "application/json" == reply.headers["content-type"]


async def test_health_below_a_mount(hooks: Hooks) -> None:
    """The endpoints are below wherever the receiver is mounted."""
    async with hooks.lifespan():
        request = Request(b"", [], method="GET", path="/a/b/health/live", root_path="/a/b")
        assert 200 == (await ask(hooks, request)).status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_health_is_only_read(hooks: Hooks, method: str) -> None:
    """Any other method is answered 405 with those that are allowed."""
    async with hooks.lifespan():
        reply = await _get(hooks, "/health/live", method)
    assert (405, "method_not_allowed") == (reply.status, reply.code)
    assert "GET, HEAD" == reply.headers["allow"]


@pytest.mark.parametrize("path", ["/healthy", "/health/lively", "/health/live/x", "//health"])
async def test_unknown_path_is_no_health(hooks: Hooks, path: str) -> None:
    """A path that only looks like one of them is an unknown endpoint."""
    async with hooks.lifespan():
        assert 405 == (await _get(hooks, path)).status
        assert "invalid_signature" == (await deliver(hooks, path=path)).code


async def _is_unready(hooks: Hooks, reason: str) -> bool:
    """Tell whether it says that it is not ready, for this reason, and is alive all the same."""
    answers = [await _get(hooks, f"/health{path}") for path in ("", "/ready", "/live")]
    unready = {"status": "unavailable", "reasons": [reason]}
    expected = [(503, unready), (503, unready), (200, OK)]
    return expected == [(reply.status, json.loads(reply.body)) for reply in answers]


async def test_draining_is_not_ready(hooks: Hooks) -> None:
    """While it drains it is alive, not ready, and refuses deliveries."""
    async with hooks.lifespan():
        hooks._begin_draining()
        assert await _is_unready(hooks, "draining")
        assert "unavailable" == (await deliver(hooks)).code


async def test_stopping_is_draining(make_hooks: Callable[..., Hooks]) -> None:
    """Once its lifespan ends it refuses deliveries, while handlers still come to their end."""
    hooks = make_hooks()
    running, may_end = asyncio.Event(), asyncio.Event()

    @hooks.on("*", name="slow")
    async def slow(event: Event) -> None:
        running.set()
        await may_end.wait()

    lifespan = hooks.lifespan()
    await lifespan.__aenter__()
    await deliver(hooks)
    await running.wait()
    stopping = asyncio.ensure_future(lifespan.__aexit__(None, None, None))
    await asyncio.sleep(0)
    try:
        assert await _is_unready(hooks, "draining")
        assert "unavailable" == (await deliver(hooks)).code
    finally:
        may_end.set()
        await stopping


async def test_failing_database_is_not_ready(
    make_hooks: Callable[..., Hooks], database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While commits fail it is alive and not ready; when one succeeds, without a request, it is."""
    monkeypatch.setattr(sqlite, "FOREIGN_LOCK_S", 0.1)
    hooks = make_hooks(ack_deadline=0.2)
    async with hooks.lifespan():
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            while not await _is_unready(hooks, "database"):
                assert "unavailable" == (await deliver(hooks)).code
        async with asyncio.timeout(PATIENCE_S):
            while (await _get(hooks, "/health")).status != 200:
                await asyncio.sleep(0.01)
