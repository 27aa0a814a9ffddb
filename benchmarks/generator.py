"""A load generator of wrk's kind, for where wrk is not: a deck over keep-alive connections.

It is run as a process of its own and prints the same line as load.lua. Being Python it may be
the slower side, which narrows every ratio: results say which generator made them.
"""

import asyncio
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import uvloop

from benchmarks.load import REQUEST_TIMEOUT_SECONDS, Load

END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"
FIRST_REFUSAL = 400


class Tally:
    """The deck and the figures that all connections share."""

    def __init__(self, deck: BinaryIO, record_bytes: int) -> None:
        self.deck = deck
        self.record_bytes = record_bytes
        self.latencies: list[float] = []
        self.sent = 0
        self.refused = 0
        self.broken = 0
        self.exhausted = asyncio.Event()
        # Nothing is sent any more; and then, nothing counts any more.
        self.is_ending = False
        self.is_over = False

    def draw(self) -> bytes | None:
        """Return the next request, or None at the end, or when the deck has run out."""
        if self.is_ending:
            return None
        record = self.deck.read(self.record_bytes)
        if len(record) == self.record_bytes:
            self.sent += 1
            return record
        self.exhausted.set()
        return None

    def note(self, seconds: float, status: int) -> None:
        """Count an answer."""
        if not self.is_over:
            self.latencies.append(seconds)
            self.refused += status >= FIRST_REFUSAL

    def load(self) -> Load:
        """Return the figures."""
        ordered = sorted(self.latencies) or [0.0]
        return Load(
            sent=self.sent,
            answered=len(self.latencies),
            refused=self.refused,
            broken=self.broken,
            timeouts=sum(latency > REQUEST_TIMEOUT_SECONDS for latency in ordered),
            p50_ms=ordered[len(ordered) // 2] * 1e3,
            p99_ms=ordered[len(ordered) * 99 // 100] * 1e3,
            exhausted=self.exhausted.is_set(),
        )


class Connection(asyncio.Protocol):
    """Sends a request, waits for its answer, and so on."""

    transport: asyncio.Transport

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.received = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # uvloop's transports are of no class that asyncio has.
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        """Send the next request, if there is one."""
        record = self.tally.draw()
        if record is not None:
            self.sent_at = time.perf_counter()
            self.transport.write(record)

    def data_received(self, data: bytes) -> None:
        """Send the next request once this one's answer is complete."""
        self.received += data
        head, end, body = self.received.partition(END_OF_HEAD)
        if end and len(body) >= content_length(head):
            self.received = b""
            self.tally.note(time.perf_counter() - self.sent_at, int(head[9:12]))
            self.send()

    def connection_lost(self, _: Exception | None) -> None:
        """Count it: a server that keeps its connections alive closes none."""
        if not self.tally.is_over:
            self.tally.broken += 1


def content_length(head: bytes) -> int:
    """Return the length of the answer's body; servers here send no chunked ones."""
    _, found, after = head.lower().partition(LENGTH)
    return int(after.split(b"\r\n", 1)[0]) if found else 0


async def generate(tally: Tally, port: int, connections: int, seconds: float, late: float) -> Load:
    """Keep every connection busy until the time, or the deck, is over."""
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(
            lambda: Connection(tally), "127.0.0.1", port, family=socket.AF_INET
        )
        for _ in range(connections)
    ]
    with suppress(TimeoutError):
        await asyncio.wait_for(tally.exhausted.wait(), seconds)
    tally.is_ending = True
    deadline = loop.time() + late
    while tally.sent > len(tally.latencies) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    tally.is_over = True
    load = tally.load()
    for transport, _ in opened:
        transport.close()
    return load


def main(path: str, record_bytes: str, port: str, *figures: str) -> None:
    """Run one window and print its figures as a line of JSON."""
    with Path(path).open("rb") as deck:
        tally = Tally(deck, int(record_bytes))
        connections, seconds, late = map(int, figures)
        load = uvloop.run(generate(tally, int(port), connections, seconds, late))
    print(msgspec.json.encode(load).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
