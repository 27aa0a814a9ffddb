"""How soon handlers begin in another process: `python -m benchmarks.start`.

One process receives, another runs handlers; deliveries come at half the rate that both together
keep up with, at a steady pace. Counted from the receipt, so that the commit is in it.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks import scratch
from benchmarks.contestants import CONTESTANTS, Contestant, serve
from benchmarks.deck import prepare
from benchmarks.load import drive
from benchmarks.overload import Sender, Tally
from benchmarks.server import Server

LAGS = "lags"
SECONDS = 10
CONNECTIONS = 64
DECK_PER_SECOND = 40_000
POLL_SECONDS = 0.1
STALL_SECONDS = 30
DATABASES = ("sqlite", "postgresql", "mariadb")


def main() -> None:
    """Print a row for each database."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"default: {SECONDS}")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    options = parser.parse_args()
    print("| database | both keep up with | sent/s | handled | start p50 ms | p99 ms |")
    for contestant in CONTESTANTS:
        if contestant.name in options.databases:
            print(_row(contestant, options.seconds))


def _row(contestant: Contestant, seconds: int) -> str:
    apart = dataclasses.replace(
        contestant,
        server=serve("benchmarks.apps.apart:receiver"),
        beside=(("animica_hooks", "worker", "benchmarks.apps.apart:worker"),),
    )
    with TemporaryDirectory(dir=scratch.folder()) as folder:
        server = Server(apart, Path(folder))
        with server:
            most = _capacity(server)
            before = len(_lags(server))
            deck = prepare(server.directory / "deck", int(most / 2 * seconds) + 1)
            sender = Sender(server.port, deck.path, deck.record_bytes)
            tally = Tally()
            uvloop.run(sender.send(most / 2, seconds, tally))
            _drain(server)
            lags = sorted(_lags(server)[before:])
    if len(lags) != len(tally.accepted):
        raise SystemExit(f"FAILED: of {len(tally.accepted)} events {len(lags)} were handled")
    p50, p99 = (lags[len(lags) * percent // 100] * 1e3 for percent in (50, 99))
    return (
        f"| {contestant.name} | {most:,.0f}/s | {most / 2:,.0f} | {len(lags):,} "
        f"| {p50:.1f} | {p99:.1f} |"
    )


def _capacity(server: Server) -> float:
    """Return how many events a second both keep up with, the backlog's end included."""
    deck = prepare(server.directory / "deck", DECK_PER_SECOND * 3)
    began = time.monotonic()
    load = drive(deck, port=server.port, connections=CONNECTIONS, seconds=3)
    _drain(server)
    return load.acked / (time.monotonic() - began)


def _drain(server: Server) -> None:
    ledger = server.contestant.ledger
    assert ledger is not None
    moved, last = time.monotonic(), -1
    while (counts := ledger.count(server.directory)).handled < counts.stored:
        if counts.handled != last:
            moved, last = time.monotonic(), counts.handled
        elif time.monotonic() - moved > STALL_SECONDS:
            raise SystemExit("FAILED: handlers stand still")
        time.sleep(POLL_SECONDS)


def _lags(server: Server) -> list[float]:
    return [float(line) for line in (server.directory / LAGS).read_text().splitlines()]


if __name__ == "__main__":
    main()
