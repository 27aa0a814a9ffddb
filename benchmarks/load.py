"""Drives a server with a deck: by `wrk` where it can be had, else by our own generator."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from benchmarks.deck import Deck

SCRIPT = Path(__file__).with_name("load.lua")
REQUEST_TIMEOUT_SECONDS = 10
# What a generator may take beyond its window to start, to stop and to report.
GRACE_SECONDS = 30
# What is under way when a window is over has so long to be answered.
LATE_SECONDS = 1


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the sender saw of one window. An answer of 400 and above is `refused`."""

    sent: int
    answered: int
    refused: int
    broken: int
    timeouts: int
    p50_ms: float
    p99_ms: float
    exhausted: bool

    @property
    def acked(self) -> int:
        """The deliveries the sender will not repeat."""
        return self.answered - self.refused

    @property
    def unknown(self) -> int:
        """The deliveries of which the sender does not know whether they arrived."""
        return self.sent - self.answered

    def acked_in_time(self, connections: int) -> int:
        """Return those acknowledged within the window: each connection had one under way then.

        Of these as many are taken to have been refused as of all.
        """
        in_time = max(0, self.sent - connections - self.broken)
        return round(in_time * self.acked / max(self.answered, 1))


@cache
def find_wrk() -> str | None:
    """Return the path of wrk, installing Debian's package when missing and allowed to."""
    if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "-y", "wrk"]):
            subprocess.run(["apt-get", *command], check=False, stdout=subprocess.DEVNULL)
    return shutil.which("wrk")


def generator_name() -> str:
    """Return the name of the load generator that `drive` uses."""
    return "wrk" if find_wrk() else "benchmarks.generator"


def drive(deck: Deck, **options: int) -> Load:
    """Send the deck's records over so many `connections` for so many `seconds`.

    `port` is the server's; `late` is for how many seconds more answers count.
    """
    wrk = find_wrk()
    if wrk is None:
        return drive_without_wrk(deck, **options)
    return _drive_wrk(wrk, deck, **options)


def _drive_wrk(
    wrk: str, deck: Deck, *, port: int, connections: int, seconds: int, late: int = LATE_SECONDS
) -> Load:
    # One thread sends several times what one server process can answer.
    options = [f"-c{connections}", "-t1", f"-d{seconds + late}s", "--latency"]
    options += ["--timeout", f"{REQUEST_TIMEOUT_SECONDS}s", "-s", str(SCRIPT)]
    arguments = map(str, (deck.path, deck.record_bytes, seconds))
    return _run([wrk, *options, f"http://127.0.0.1:{port}/", "--", *arguments], seconds + late)


def drive_without_wrk(
    deck: Deck, *, port: int, connections: int, seconds: int, late: int = LATE_SECONDS
) -> Load:
    """Do what `drive` does with our own generator, whether wrk is there or not."""
    figures = map(str, (deck.record_bytes, port, connections, seconds, late))
    command = [sys.executable, "-m", "benchmarks.generator", str(deck.path), *figures]
    return _run(command, seconds + late)


def _run(command: list[str], seconds: int) -> Load:
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, timeout=seconds + GRACE_SECONDS
    )
    # wrk prints its own summary around the line that load.lua adds last.
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Load)
