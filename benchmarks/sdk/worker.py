"""A client in a process of its own: does what standard input says, and answers with its cost.

Each line in is a JSON list, a measure and its seconds; each line out an object with `cpu_us`, per
unit, or with `failure`. A measure that the client has nothing for is answered with neither.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import json
import os
import sys
from importlib import import_module
from typing import Any

from benchmarks.sdk.operations import ASYNC, SYNC, TLS, WrongAnswer

AUTHORITIES = "SSL_CERT_FILE"
# A client that hangs shows where, and its process ends.
PATIENCE_SECONDS = 60


class Worker:
    """The client, sync and async and with TLS, each made when it is first needed."""

    def __init__(self, module: Any, options: argparse.Namespace, runner: asyncio.Runner) -> None:
        self._module = module
        self._options = options
        self._runner = runner
        self._made: dict[str, Any] = {}

    def measure(self, name: str, seconds: float) -> float | None:
        """Return the processor time of one unit, in microseconds."""
        cost: float
        needed, run = (SYNC | TLS | ASYNC)[name]
        if not hasattr(self._module, needed) or not self._is_whole(name):
            return None
        if name in ASYNC:
            cost = self._runner.run(run(self._module, self._async(), seconds))
            return cost
        cost = run(self._module, self._secure() if name in TLS else self._plain(), seconds)
        return cost

    def _is_whole(self, name: str) -> bool:
        # One without streams asks only for start-up's sake, as an async one may.
        return name in ASYNC or hasattr(self._module, "stream")

    def _plain(self) -> Any:
        if "plain" not in self._made:
            self._made["plain"] = self._module.make(self._options.url)
        return self._made["plain"]

    def _secure(self) -> Any:
        if "secure" not in self._made:
            # Only now: what is trusted otherwise is part of what a client costs to make.
            os.environ[AUTHORITIES] = self._options.authority
            self._made["secure"] = self._module.make(self._options.secure_url)
        return self._made["secure"]

    def _async(self) -> Any:
        if "async" not in self._made:
            self._made["async"] = self._runner.run(self._make_async())
        return self._made["async"]

    async def _make_async(self) -> Any:
        return self._module.make_async(self._options.url)

    def close(self) -> None:
        """Close what was made."""
        for kind, client in self._made.items():
            if kind == "async":
                self._runner.run(self._module.close_async(client))
            else:
                self._module.close(client)


def attempt(worker: Worker, name: str, seconds: float) -> dict[str, object]:
    """Return what to answer."""
    try:
        return {"cpu_us": worker.measure(name, seconds)}
    except WrongAnswer as error:
        return {"failure": str(error)}
    except Exception as error:  # noqa: BLE001 - one client's breakdown must not cost the others' windows
        return {"failure": f"broke down: {type(error).__name__}"}


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk.worker", description=__doc__)
    for name in ("module", "url", "secure_url", "authority"):
        parser.add_argument(name)
    options = parser.parse_args()
    module = import_module(f"benchmarks.sdk.clients.{options.module}")
    with asyncio.Runner() as runner:
        worker = Worker(module, options, runner)
        for line in sys.stdin:
            faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
            print(json.dumps(attempt(worker, *json.loads(line))), flush=True)
            faulthandler.cancel_dump_traceback_later()
        worker.close()


if __name__ == "__main__":
    main()
