"""What a client is made to do, in its own process, by worker.py."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.sdk import asked

IN_FLIGHT = 64
WARM_UP_REQUESTS = 20
EMBEDDED = len(asked.TEXTS) * (asked.DIMENSIONS + 0.5)


class WrongAnswer(Exception):
    """A client did not return what the server had sent."""


class Measured:
    """Processor time, of all threads, and what was done in it."""

    def __init__(self) -> None:
        gc.collect()
        self.units = 0
        self._began = time.process_time()

    def microseconds(self) -> float:
        """Return the processor time of one unit."""
        return (time.process_time() - self._began) * 1e6 / self.units


def check(found: object, expected: object) -> None:
    """Refuse what is not what was sent: the speed of what does not read is no speed."""
    if found != expected:
        raise WrongAnswer(f"returned {type(found).__name__}, not what was sent")


def _repeat(work: Callable[[], int], seconds: float) -> float:
    measured = Measured()
    end = time.monotonic() + seconds
    while not measured.units or time.monotonic() < end:
        measured.units += work()
    return measured.microseconds()


def request(module: Any, client: Any, seconds: float) -> float:
    """Ask one question after another."""

    def work() -> int:
        check(module.ask(client), asked.ANSWER)
        return 1

    for _ in range(WARM_UP_REQUESTS):
        work()
    return _repeat(work, seconds)


def stream(module: Any, client: Any, seconds: float, *, model: str) -> float:
    """Read one stream after another; the unit is a chunk."""

    def work() -> int:
        check(module.stream(client, model), asked.expected_stream(model))
        return asked.CHUNKS[model]

    work()
    return _repeat(work, seconds)


def embeddings(module: Any, client: Any, seconds: float, *, function: str) -> float:
    """Get all vectors, again and again."""

    def work() -> int:
        check(getattr(module, function)(client), EMBEDDED)
        return 1

    work()
    return _repeat(work, seconds)


async def in_flight(module: Any, client: Any, seconds: float) -> float:
    """Keep many questions under way at once."""

    async def ask() -> None:
        check(await module.ask_async(client), asked.ANSWER)

    async def keep_asking() -> None:
        # At least twice, so that all are under way at once however slow the client is.
        count = 0
        while count < 2 or time.monotonic() < end:
            await ask()
            count += 1
        measured.units += count

    await asyncio.gather(*[ask() for _ in range(IN_FLIGHT)])
    measured = Measured()
    end = time.monotonic() + seconds
    await asyncio.gather(*[keep_asking() for _ in range(IN_FLIGHT)])
    return measured.microseconds()


async def stream_async(module: Any, client: Any, seconds: float, *, model: str) -> float:
    """Read one stream after another, in a coroutine."""

    async def work() -> int:
        check(await module.stream_async(client, model), asked.expected_stream(model))
        return asked.CHUNKS[model]

    await work()
    measured = Measured()
    end = time.monotonic() + seconds
    while not measured.units or time.monotonic() < end:
        measured.units += await work()
    return measured.microseconds()


# By the name of the measure: what a client's module must have for it, and what is done.
SYNC: dict[str, tuple[str, Callable[[Any, Any, float], float]]] = {
    "request": ("ask", request),
    "burst": ("stream", partial(stream, model=asked.BURST)),
    "live": ("stream", partial(stream, model=asked.LIVE)),
    "embeddings": ("embed_floats", partial(embeddings, function="embed_floats")),
    "embeddings-default": ("embed", partial(embeddings, function="embed")),
}
TLS: dict[str, tuple[str, Callable[[Any, Any, float], float]]] = {"tls": ("ask", request)}
ASYNC: dict[str, tuple[str, Callable[[Any, Any, float], Any]]] = {
    "in-flight": ("ask_async", in_flight),
    "burst-async": ("stream_async", partial(stream_async, model=asked.BURST)),
    "live-async": ("stream_async", partial(stream_async, model=asked.LIVE)),
}
