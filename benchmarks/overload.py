"""Ten times what the database can take: `python -m benchmarks.overload`.

The load is open: deliveries come when they come, whether or not those before were answered, as
senders do. The store is slowed down to a rate that is known, so that neither the generator nor the
refusals are what is measured. Afterwards a tenth of the rate comes, until all of it is accepted.
"""

import argparse
import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks import scratch
from benchmarks.deck import prepare
from benchmarks.server import Server

CAPACITY = 200  # events a second
UNBOUNDED = "BENCHMARKS_UNBOUNDED"
TIMES = 10
SECONDS = 60
WARM_UP_SECONDS = 5
CALM_SECONDS = 5
CONNECTIONS = 900
OK = b"HTTP/1.1 204"
REFUSED = b"HTTP/1.1 503"
PROMPT_S = 0.1


@dataclass
class Tally:
    """What was answered; times are seconds from when a delivery was due to its answer."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    hintless: int = 0
    odd: int = 0
    unsent: int = 0

    def note(self, answer: bytes, seconds: float) -> None:
        if answer.startswith(OK):
            self.accepted.append(seconds)
        elif answer.startswith(REFUSED):
            self.refused.append(seconds)
            self.hintless += b"retry-after:" not in answer.lower()
        else:
            self.odd += 1


class Sender:
    """Sends a deck's records at a steady rate over as many connections as that takes."""

    def __init__(self, port: int, deck: Path, record_bytes: int) -> None:
        self._port = port
        self._deck = deck.open("rb")
        self._record_bytes = record_bytes
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, rate: float, seconds: float, tally: Tally) -> None:
        """Send for so long, then wait for what is under way."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for n in range(int(rate * seconds)):
            due = began + n / rate
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(self._send_one(due, tally))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)

    async def _send_one(self, due: float, tally: Tally) -> None:
        while self._idle and self._idle[-1][0].at_eof():  # idle for too long
            self._idle.pop()[1].close()
            self._open -= 1
        if not self._idle and self._open >= CONNECTIONS:
            tally.unsent += 1
            return
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            self._open += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(self._deck.read(self._record_bytes))
        try:
            answer = await reader.readuntil(b"\r\n\r\n")
            if length := answer.lower().partition(b"content-length:")[2]:
                await reader.readexactly(int(length.split(b"\r\n", 1)[0]))
        except (asyncio.IncompleteReadError, OSError):
            tally.odd += 1
            self._open -= 1
            return
        tally.note(answer, asyncio.get_running_loop().time() - due)
        self._idle.append((reader, writer))


def main() -> None:
    """Print the figures beside what they should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--times", type=float, default=TIMES, help="of the capacity; default: 10")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="default: 60")
    parser.add_argument("--unbounded", action="store_true", help="admit as many as memory allows")
    options = parser.parse_args()
    uvloop.run(_run(options.times, options.seconds, unbounded=options.unbounded))


async def _run(times: float, seconds: int, *, unbounded: bool) -> None:
    rate = CAPACITY * times
    calm = CAPACITY / 10
    # Imported here, since the app that it names imports this module.
    from benchmarks.contestants import SYNCED, Contestant, serve

    contestant = Contestant(
        name="slow",
        about="a slow store",
        acked=SYNCED,
        server=serve("benchmarks.apps.slow:hooks"),
        ledger=None,
        environment={UNBOUNDED: "1"} if unbounded else {},
    )
    with TemporaryDirectory(dir=scratch.folder()) as folder:
        count = int(rate * seconds + CAPACITY * WARM_UP_SECONDS + calm * CALM_SECONDS) + 100
        deck = prepare(Path(folder) / "deck", count)
        with Server(contestant, Path(folder)) as server:
            sender = Sender(server.port, deck.path, deck.record_bytes)
            await sender.send(CAPACITY / 2, WARM_UP_SECONDS, Tally())
            before = server.peak_memory_mb()
            over = Tally()
            began = time.monotonic()
            await sender.send(rate, seconds, over)
            took = time.monotonic() - began
            memory = server.peak_memory_mb() - before
            recovered = await _recover(sender, calm)
    _report(over, took, memory, recovered)


async def _recover(sender: Sender, rate: float) -> float:
    """Return the seconds until every delivery is accepted promptly."""
    began = last_bad = time.monotonic()
    while time.monotonic() - began < CALM_SECONDS:
        calm = Tally()
        await sender.send(rate, 5 / rate, calm)
        if calm.refused or calm.odd or calm.unsent or max(calm.accepted) > PROMPT_S:
            last_bad = time.monotonic()
    return last_bad - began


def _report(over: Tally, took: float, memory: float, recovered: float) -> None:
    rows = [
        ("goodput, of the capacity", len(over.accepted) / took / CAPACITY, ">= 0.8"),
        ("accepted, p50 s", _percentile(over.accepted, 50), ""),
        ("accepted, p99 s", _percentile(over.accepted, 99), "<= 1"),
        ("refused", len(over.refused), ""),
        ("refused, p99 s", _percentile(over.refused, 99), "<= 0.05"),
        ("refused without Retry-After", over.hintless, "0"),
        ("answered otherwise, or not at all", over.odd, "0"),
        ("not sent for want of connections", over.unsent, "0"),
        ("memory grown, MB", memory, "<= 20"),
        ("recovered after, s", recovered, "<= 2"),
    ]
    for what, figure, goal in rows:
        shown = f"{figure:,}" if isinstance(figure, int) else f"{figure:.3f}"
        print(f"| {what:33} | {shown:>9} | {goal:7} |")


def _percentile(seconds: list[float], percent: int) -> float:
    ordered = sorted(seconds) or [0.0]
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


if __name__ == "__main__":
    main()
