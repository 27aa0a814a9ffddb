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


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the sender saw in one window. An answer of 400 and above is `refused`."""

    answered: int
    refused: int
    broken: int
    timeouts: int
    seconds: float
    p50_ms: float
    p99_ms: float
    exhausted: bool

    @property
    def acked(self) -> int:
        """The deliveries the sender will not repeat."""
        return self.answered - self.refused


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


def drive(deck: Deck, *, port: int, connections: int, seconds: int) -> Load:
    """Send the deck's records for so many seconds and return what came back."""
    wrk = find_wrk()
    if wrk is None:
        return _run(_own_command(deck, port, connections, seconds), seconds)
    return _run(_wrk_command(wrk, deck, port, connections, seconds), seconds)


def drive_without_wrk(deck: Deck, *, port: int, connections: int, seconds: int) -> Load:
    """Do what `drive` does with our own generator, whether wrk is there or not."""
    return _run(_own_command(deck, port, connections, seconds), seconds)


def _wrk_command(wrk: str, deck: Deck, port: int, connections: int, seconds: int) -> list[str]:
    # One thread sends several times what one server process can answer.
    options = [f"-c{connections}", "-t1", f"-d{seconds}s", "--latency"]
    options += ["--timeout", f"{REQUEST_TIMEOUT_SECONDS}s", "-s", str(SCRIPT)]
    url = f"http://127.0.0.1:{port}/"
    return [wrk, *options, url, "--", str(deck.path), str(deck.record_bytes)]


def _own_command(deck: Deck, port: int, connections: int, seconds: int) -> list[str]:
    figures = map(str, (deck.record_bytes, port, connections, seconds))
    return [sys.executable, "-m", "benchmarks.generator", str(deck.path), *figures]


def _run(command: list[str], seconds: int) -> Load:
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, timeout=seconds + GRACE_SECONDS
    )
    # wrk prints its own summary around the line that load.lua adds last.
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Load)
