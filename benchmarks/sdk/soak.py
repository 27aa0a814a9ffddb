"""Whether a client keeps what it should let go of: much work in one process, then a look at it.

Run as a process of its own for each client, sync and async. What is warmed up first is what any
client keeps for good (types, buffers, connections); growth is counted from there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
from importlib import import_module
from typing import Any

from benchmarks.sdk import asked
from benchmarks.sdk.contestants import Contestant
from benchmarks.sdk.crew import Breakdown, run_once
from benchmarks.sdk.memory import descriptors, resident_mib
from benchmarks.sdk.operations import check
from benchmarks.sdk.serving import Serving

MEASURES = ("soak-memory", "soak-memory-again", "soak-descriptors")
ASYNC_MEASURES = tuple(f"{name}-async" for name in MEASURES)

Load = tuple[int, int, int]
WARM_UP: Load = (300, 1, 3)
FULL: Load = (4_000, 10, 30)
TOGETHER = 50


def soak(contestant: Contestant, serving: Serving) -> dict[str, float] | Breakdown:
    """Soak a client both ways; keys are all measures."""
    found: dict[str, float] = {}
    try:
        for way, names in (("sync", MEASURES), ("async", ASYNC_MEASURES)):
            arguments = ("-m", "benchmarks.sdk.soak", contestant.module, way, serving.url)
            found |= dict(zip(names, run_once(contestant, *arguments), strict=True))
    except Breakdown as breakdown:
        return breakdown
    return found


def _level() -> float:
    gc.collect()
    return resident_mib()


def _work(module: Any, client: Any, url: str, load: Load) -> None:
    requests, streams, clients = load
    for _ in range(requests):
        check(module.ask(client), asked.ANSWER)
    for _ in range(streams):
        check(module.stream(client, asked.LONG), asked.expected_stream(asked.LONG))
    for _ in range(clients):
        other = module.make(url)
        check(module.ask(other), asked.ANSWER)
        module.close(other)


def sync(module: Any, url: str) -> tuple[float, float, int]:
    """Return what was kept: MiB, MiB of the same again, and descriptors."""
    opened = descriptors()
    client = module.make(url)
    _work(module, client, url, WARM_UP)
    levels = [_level()]
    for _ in range(2):
        _work(module, client, url, FULL)
        levels.append(_level())
    module.close(client)
    del client
    gc.collect()
    return levels[1] - levels[0], levels[2] - levels[1], descriptors() - opened


async def _work_async(module: Any, client: Any, url: str, load: Load) -> None:
    requests, streams, clients = load

    async def ask() -> None:
        check(await module.ask_async(client), asked.ANSWER)

    for _ in range(requests // TOGETHER):
        await asyncio.gather(*[ask() for _ in range(TOGETHER)])
    for _ in range(streams):
        found = await module.stream_async(client, asked.LONG)
        check(found, asked.expected_stream(asked.LONG))
    for _ in range(clients):
        other = module.make_async(url)
        check(await module.ask_async(other), asked.ANSWER)
        await module.close_async(other)


async def coroutines(module: Any, url: str) -> tuple[float, float, int]:
    """As ``sync``, with the async client."""
    opened = descriptors()
    client = module.make_async(url)
    await _work_async(module, client, url, WARM_UP)
    levels = [_level()]
    for _ in range(2):
        await _work_async(module, client, url, FULL)
        levels.append(_level())
    await module.close_async(client)
    del client
    # The loop closes what a transport let go of in its next rounds.
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    return levels[1] - levels[0], levels[2] - levels[1], descriptors() - opened


def main() -> None:
    """Soak one client and print what it kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk.soak", description=__doc__)
    for name in ("module", "way", "url"):
        parser.add_argument(name)
    options = parser.parse_args()
    module = import_module(f"benchmarks.sdk.clients.{options.module}")
    if options.way == "sync":
        kept = sync(module, options.url)
    else:
        kept = asyncio.run(coroutines(module, options.url))
    print(json.dumps(kept))


if __name__ == "__main__":
    main()
