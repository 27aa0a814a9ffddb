"""How fast stored events are replayed: `python -m benchmarks.replay`.

A server receives and handles as many events as are asked for, under full load; then all of them are
replayed to the same handler by `animica-hooks replay`, in a process of its own beside the server,
which handles them. Both rates end when the last handler has finished.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import databases, scratch
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.deck import prepare
from benchmarks.load import drive
from benchmarks.server import Server

EVENTS = 100_000
CONNECTIONS = 64
WINDOW_SECONDS = 2
DECK_PER_SECOND = 40_000
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 600
DATABASES = ("sqlite", "postgresql", "mariadb")


def main() -> None:
    """Print a row for each database."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help=f"default: {EVENTS}")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=["sqlite"])
    options = parser.parse_args()
    print(
        "| database | events | live/s | replayed/s | of live "
        "| server MB: live, replay | replay MB |"
    )
    for contestant in CONTESTANTS:
        if contestant.name in options.databases:
            print(_row(contestant, options.events))


def _row(contestant: Contestant, events: int) -> str:
    with (
        TemporaryDirectory(dir=scratch.folder()) as folder,
        Server(contestant, Path(folder)) as server,
    ):
        live, stored = _receive(server, events)
        memory = server.peak_memory_mb()
        began = time.monotonic()
        replay_memory = _replay(server)
        _wait(server, stored * 2)
        replayed = stored / (time.monotonic() - began)
        grown = server.peak_memory_mb()
    return (
        f"| {contestant.name} | {stored:,} | {live:,.0f} | {replayed:,.0f} | {replayed / live:.2f} "
        f"| {memory:.0f}, {grown:.0f} | {replay_memory:.0f} |"
    )


def _receive(server: Server, events: int) -> tuple[float, int]:
    """Receive at least so many events; return those handled a second, and how many there are."""
    busy, stored = 0.0, 0
    while stored < events:
        deck = prepare(server.directory / "deck", DECK_PER_SECOND * WINDOW_SECONDS)
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
        counts = ledger.count(server.directory)
        if counts.handled >= max(handled, counts.stored):
            return counts.stored
        time.sleep(POLL_SECONDS)
    raise SystemExit("FAILED: not everything was handled")


def _replay(server: Server) -> float:
    """Replay all events; return the largest resident set of the process that did, in MB."""
    kind = server.contestant.database
    url = databases.url(kind, server.directory) if kind else f"sqlite:///{server.directory}/x.db"
    command = [sys.executable, "-m", "animica_hooks", "replay", "--all", "--yes"]
    process = subprocess.Popen([*command, "--database-url", url], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"FAILED: the replay ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
