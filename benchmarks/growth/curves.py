"""What grows while deliveries are received, and the windows that show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.contestants import CONTESTANTS, LIMIT, Contestant, with_handlers
from benchmarks.deck import BODY_BYTES
from benchmarks.goals import OURS
from benchmarks.window import Plan, Window, run_window

# By default `serve` takes fewer at once than the longest of the curves has.
OPTIONS = ("--max-connections", "10000")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One contestant under one load; what does not grow is as it is in the other benchmark."""

    contestant: str
    handlers: int = 1
    body_bytes: int = BODY_BYTES
    connections: int = 64

    @property
    def name(self) -> str:
        """What its windows are named, which all points of the same load share."""
        if self.contestant == LIMIT:
            return LIMIT
        return f"{self.contestant}, {self.handlers} handlers, {self.body_bytes} bytes"

    def measure(self, plan: Plan, round_number: int) -> Window:
        """Run a window of it."""
        return run_window(
            self._receiver(),
            replace(plan, body_bytes=self.body_bytes),
            connections=self.connections,
            round_number=round_number,
        )

    def _receiver(self) -> Contestant:
        one = next(one for one in CONTESTANTS if one.name == self.contestant)
        return one if one.name == LIMIT else with_handlers(one, self.name, self.handlers, *OPTIONS)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Something that grows.

    Attributes:
        field: which of a point's it is.
        title: what that is called.
        sizes: how large it gets.
        contestants: who is measured.
    """

    field: str
    title: str
    sizes: tuple[int, ...]
    contestants: tuple[str, ...] = OURS

    def point(self, contestant: str, size: int) -> Point:
        """Return one of its points."""
        return replace(Point(contestant=contestant), **{self.field: size})

    def points(self) -> Iterator[Point]:
        """Return all of them."""
        for size in self.sizes:
            for contestant in self.contestants:
                yield self.point(contestant, size)


HANDLERS = Curve(field="handlers", title="handlers per event", sizes=(1, 5, 20))
BODIES = Curve(
    field="body_bytes", title="bytes of a body", sizes=(200, 1024, 16_384, 131_072, 1_048_576)
)
CONNECTIONS = Curve(
    field="connections",
    title="connections",
    sizes=(1, 8, 64, 256, 1024),
    contestants=(LIMIT, *OURS),
)


def measure(curves: Iterable[Curve], plan: Plan, rounds: int) -> Iterator[Window]:
    """Run a window of each point in each round; one that several curves share runs once."""
    points: Sequence[Point] = list(dict.fromkeys(p for curve in curves for p in curve.points()))
    for round_number in range(rounds):
        # Every other round runs backwards, so that none is always the first or the last.
        for point in points if round_number % 2 == 0 else points[::-1]:
            yield point.measure(plan, round_number)
