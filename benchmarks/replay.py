"""How fast stored events are replayed: `python -m benchmarks.replay`.

A server receives and handles as many events as are asked for, under full load; then all of them are
replayed to the same handler by `animica-hooks replay`, in a process of its own beside the server,
which handles them. Both rates end when the last handler has finished.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import databases, scratch
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.deck import prepare
from benchmarks.goals import OURS
from benchmarks.load import drive
from benchmarks.pages import ABSENT, number, table
from benchmarks.server import Server, ServerError
from benchmarks.window import BREAKDOWNS, describe

EVENTS = 100_000
CONNECTIONS = 64
WINDOW_SECONDS = 2
DECK_PER_SECOND = 40_000
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; memory is the largest resident set, of the server before and after."""

    events: int
    live_per_second: float
    replayed_per_second: float
    server_memory_mb: float
    server_memory_after_mb: float
    replay_memory_mb: float

    @property
    def of_live(self) -> float:
        """The rate of the replay to that at which the same was received and handled."""
        return self.replayed_per_second / self.live_per_second


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replay of as many events as were asked for, or a few more."""

    contestant: str
    asked: int
    figures: Figures | None = None
    failure: str | None = None

    @property
    def summary(self) -> str:
        """What came out, in a line."""
        where = f"replay of {self.asked:,} events, {self.contestant}"
        if self.figures is None:
            return f"{where}: FAILED: {self.failure}"
        return f"{where}: {self.figures.replayed_per_second:,.0f}/s"

    @property
    def row(self) -> list[str]:
        """Return what is below `COLUMNS`."""
        if self.figures is None:
            unknown = [ABSENT] * (len(COLUMNS) - 3)
            return [self.contestant, f"{self.asked:,}", *unknown, f"FAILED: {self.failure}"]
        found = self.figures
        return [
            self.contestant,
            f"{found.events:,}",
            number(found.live_per_second, 0),
            number(found.replayed_per_second, 0),
            number(found.of_live, 2),
            f"{found.server_memory_mb:.0f}, {found.server_memory_after_mb:.0f}",
            number(found.replay_memory_mb, 0),
            "passed",
        ]


COLUMNS = (
    "database",
    "events",
    "live/s",
    "replayed/s",
    "of live",
    "server MB: live, replay",
    "replay MB",
    "audit",
)


def main() -> int:
    """Print a row for each database; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help=f"default: {EVENTS}")
    parser.add_argument("--databases", nargs="+", choices=OURS, default=["sqlite"])
    options = parser.parse_args()
    chosen = [one for one in CONTESTANTS if one.name in options.databases]
    replays = [measure(contestant, options.events) for contestant in chosen]
    print(table(COLUMNS, (replay.row for replay in replays)))
    return int(any(replay.failure for replay in replays))


def measure(contestant: Contestant, events: int) -> Replay:
    """Receive and handle at least so many events, then replay them; say so where that fails."""
    try:
        with (
            TemporaryDirectory(dir=scratch.folder()) as folder,
            Server(contestant, Path(folder)) as server,
        ):
            figures = _measure(server, events)
    except BREAKDOWNS as error:
        return Replay(contestant=contestant.name, asked=events, failure=describe(error))
    return Replay(contestant=contestant.name, asked=events, figures=figures)


def _measure(server: Server, events: int) -> Figures:
    live, stored = _receive(server, events)
    memory = server.peak_memory_mb()
    began = time.monotonic()
    replay_memory = _replay(server)
    _wait(server, stored * 2)
    return Figures(
        events=stored,
        live_per_second=live,
        replayed_per_second=stored / (time.monotonic() - began),
        server_memory_mb=memory,
        server_memory_after_mb=server.peak_memory_mb(),
        replay_memory_mb=replay_memory,
    )


def _receive(server: Server, events: int) -> tuple[float, int]:
    """Receive at least so many events; return those handled a second, and how many there are."""
    busy, stored = 0.0, 0
    while stored < events:
        # Those under way when the deck runs out may not arrive.
        missing = events - stored + CONNECTIONS
        size = min(missing, DECK_PER_SECOND * WINDOW_SECONDS)
        deck = prepare(server.directory / "deck", size)
        began = time.monotonic()
        drive(deck, port=server.port, connections=CONNECTIONS, seconds=WINDOW_SECONDS)
        stored = _wait(server, 0)
        busy += time.monotonic() - began
    return stored / busy, stored


def _wait(server: Server, handled: int) -> int:
    """Wait until so many, and all that is stored, have been handled; return how many are stored."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    ledger = server.contestant.ledger
    assert ledger is not None
    while time.monotonic() < give_up_at:
        server.check()
        counts = ledger.count(server.directory)
        if counts.handled >= max(handled, counts.stored):
            return counts.stored
        time.sleep(POLL_SECONDS)
    raise ServerError(f"not everything was handled in {PATIENCE_SECONDS} s")


def _replay(server: Server) -> float:
    """Replay all events; return the largest resident set of the process that did, in MB."""
    url = databases.url(server.contestant.database, server.directory)
    command = [sys.executable, "-m", "animica_hooks", "replay", "--all", "--yes"]
    process = subprocess.Popen([*command, "--database-url", url], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ServerError(f"the replay ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
