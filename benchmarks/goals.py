"""How fast it has to be, as ratios within one run; absolute rates are the machine's."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import results
from benchmarks.contestants import LIMIT
from benchmarks.results import Figure, Ratio, Results


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound on a ratio, or without `to` on a figure.

    Attributes:
        other: the figure of `to`, where it is not the same one.
        now: what must not be lost again; by default the goal.
        goal: where to get.
    """

    about: str
    contestant: str
    connections: int = 64
    figure: Figure
    to: str | None = None
    other: Figure | None = None
    now: float | None = None
    goal: float
    is_ceiling: bool = False

    def measured(self, found: Results) -> Ratio | None:
        """Return the ratio in this run, or None where it lacks one of the two."""
        if self.to is None:
            return found.spread(self.figure, self.contestant, self.connections)
        return found.ratio(
            self.figure, self.contestant, self.connections, to=self.to, other=self.other
        )

    def verdict(self, measured: Ratio) -> str:
        """Return how the median stands to the two bounds."""
        if self._is_met(measured.median, self.goal):
            return "met"
        is_kept = self.now is not None and self._is_met(measured.median, self.now)
        return "on the way" if is_kept else "MISSED"

    def _is_met(self, value: float, bound: float) -> bool:
        return value <= bound if self.is_ceiling else value >= bound


OURS = ("sqlite", "postgresql", "mariadb")


def _goals() -> Iterator[Goal]:
    for name, now, goal in zip(OURS, (0.50, 0.45, 0.30), (0.60, 0.50, 0.35), strict=True):
        yield _of_limit(name, 64, now, goal)
    for name, now, goal in zip(OURS, (0.50, 0.45, 0.30), (0.70, 0.55, 0.40), strict=True):
        yield _of_limit(name, 256, now, goal)
    for name, now, goal in zip(OURS, (3, 3.5, 4), (2, 2.5, 3), strict=True):
        yield Goal(
            about="ack p99 / limit's",
            contestant=name,
            figure=results.p99,
            to=LIMIT,
            now=now,
            goal=goal,
            is_ceiling=True,
        )
    for name in OURS:
        yield Goal(
            about="ack p50 / (limit's + one fsync)",
            contestant=name,
            connections=1,
            figure=results.p50,
            to=LIMIT,
            other=results.p50_and_fsync,
            goal=1.2,
            is_ceiling=True,
        )
    for name in OURS:
        yield Goal(
            about="handled / acked",
            contestant=name,
            figure=results.handled,
            to=name,
            other=results.received,
            goal=0.95,
        )
    for name in ("postgresql", "mariadb"):
        yield Goal(
            about="handled by two receivers and two workers / by one process",
            contestant=f"{name}-apart",
            figure=results.handled,
            to=name,
            goal=1.0,
        )
    for name, goal in zip(OURS, (0.10, 0.20, 0.12), strict=True):
        yield Goal(
            about="handled / limit's receive, an effect through `session`",
            contestant=f"{name}-session",
            figure=results.handled,
            to=LIMIT,
            other=results.received,
            goal=goal,
        )
    for name in OURS:
        yield Goal(
            about="memory MB",
            contestant=name,
            figure=results.memory,
            goal=80,
            is_ceiling=True,
        )


def _goals_beside_others() -> Iterator[Goal]:
    for name, connections, goal in (
        ("sqlite", 64, 30),
        ("postgresql", 64, 20),
        ("sqlite", 1, 4),
        ("postgresql", 1, 3),
    ):
        yield _of_peer(name, f"tutorial-{name}", goal, connections)
    for peer, goal in (
        ("hookspool", 14),
        ("hookrelay-sqlite", 20),
        ("dbos-sqlite", 28),
        ("procrastinate", 20),
        ("celery", 10),
    ):
        yield _of_peer("sqlite", peer, goal)


def _of_limit(name: str, connections: int, now: float, goal: float) -> Goal:
    return Goal(
        about="receive / limit",
        contestant=name,
        connections=connections,
        figure=results.received,
        to=LIMIT,
        now=now,
        goal=goal,
    )


def _of_peer(name: str, peer: str, goal: float, connections: int = 64) -> Goal:
    return Goal(
        about=f"receive / {peer}",
        contestant=name,
        connections=connections,
        figure=results.received,
        to=peer,
        goal=goal,
    )


GOALS = (*_goals(), *_goals_beside_others())
# How much of the rate at which it stores events a database keeps from the smallest of the sizes
# that benchmarks.growth is run with to the largest: meant for 10 thousand rows and 10 million.
GROWN = {"sqlite": 0.6, "postgresql": 0.9, "mariadb": 0.8}
