"""Benches, and a worker that does not come round by itself."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from dispatchkit import Bench, Clock, MakeBench

from animica_hooks import Router
from animica_hooks.dispatch import worker as worker_module


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the worker's poll so slow that nothing in a test is owed to it."""
    monkeypatch.setattr(worker_module, "POLL_S", 600.0)


@pytest.fixture
def quick_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the worker's poll so quick that a test need not wait for it."""
    monkeypatch.setattr(worker_module, "POLL_S", 0.05)


@pytest.fixture
async def start_bench(inbox_url: str) -> AsyncIterator[MakeBench]:
    """Starts benches on one database; they are stopped at the end."""
    started: list[Bench] = []

    async def start_bench(router: Router, **options: Any) -> Bench:
        bench = Bench(inbox_url, router, **options)
        started.append(bench)
        await bench.start()
        return bench

    yield start_bench
    for bench in started:
        await bench.stop(seconds=0.2)
