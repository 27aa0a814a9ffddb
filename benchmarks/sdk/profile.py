"""Where a client's processor time goes, per unit: `python -m benchmarks.sdk.profile MEASURE`.

Once without a profiler for the true cost, once under cProfile for its parts. cProfile slows every
call, small ones most: trust the calls per unit and the order, not the sums. What C does by itself
counts for the function that called it, or is listed by its own name where Python called it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from benchmarks.sdk import crew
from benchmarks.sdk.asked import CHUNKS
from benchmarks.sdk.contestants import CONTESTANTS, OURS
from benchmarks.sdk.operations import ASYNC, SYNC, TLS
from benchmarks.sdk.serving import Serving
from benchmarks.sdk.worker import Worker

SECONDS = 2.0
TOP = 45


@dataclass(frozen=True)
class Cost:
    """What one function costs per unit, in microseconds without those it calls."""

    function: str
    calls: float
    own_us: float
    total_us: float


class Counted:
    """A client's module that counts what is done with it, warming up included, as cProfile does."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.units = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        units = {"ask": 1, "ask_async": 1, "embed": 1, "embed_floats": 1}.get(name)
        if units is None and name not in ("stream", "stream_async"):
            return found

        def counted(client: Any, *model: str) -> Any:
            self.units += units or CHUNKS[model[0]]
            return found(client, *model)

        return counted


def main() -> None:
    """Print the table."""
    options = _options()
    contestant = next(one for one in CONTESTANTS if one.name == options.contestant)
    for name in list(os.environ):
        if name not in crew.environment(contestant):
            del os.environ[name]
    module = Counted(import_module(f"benchmarks.sdk.clients.{contestant.module}"))
    with (
        TemporaryDirectory() as folder,
        Serving(Path(folder)) as serving,
        asyncio.Runner() as runner,
    ):
        where = argparse.Namespace(
            url=serving.url,
            secure_url=serving.secure_url,
            authority=str(serving.authority),
        )
        worker = Worker(module, where, runner)
        cost = worker.measure(options.measure, SECONDS)
        module.units = 0
        profiler = cProfile.Profile(time.process_time)
        profiler.enable()
        profiled = worker.measure(options.measure, SECONDS)
        profiler.disable()
        worker.close()
    if cost is None or profiled is None:
        raise SystemExit(f"{contestant.name} has nothing for {options.measure}")
    costs = sorted(_costs(profiler, module.units), key=lambda each: each.own_us, reverse=True)
    print(f"{contestant.name}, {options.measure}")
    print(f"without a profiler {cost:.1f} us, under it {profiled:.1f} us, per unit\n")
    print("own us  with callees  calls  function")
    for each in costs[:TOP]:
        print(f"{each.own_us:6.2f}  {each.total_us:12.2f}  {each.calls:5.2f}  {each.function}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk.profile", description=__doc__)
    parser.add_argument("measure", choices=[*SYNC, *TLS, *ASYNC])
    names = [contestant.name for contestant in CONTESTANTS]
    parser.add_argument("--contestant", choices=names, default=OURS, help="default: ours")
    return parser.parse_args()


def _costs(profiler: cProfile.Profile, units: int) -> Iterator[Cost]:
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]]
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    for (file, line, name), (_, calls, own, total, _) in stats.items():
        place = "/".join(Path(file).parts[-3:]) if file != "~" else ""
        yield Cost(
            function=f"{place}:{line} {name}" if place else name,
            calls=calls / units,
            own_us=own * 1e6 / units,
            total_us=total * 1e6 / units,
        )


if __name__ == "__main__":
    main()
