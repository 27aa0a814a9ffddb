"""How fast it has to be, as ratios within one run; absolute rates are the machine's."""

from dataclasses import dataclass

from benchmarks import results
from benchmarks.contestants import LIMIT, TUTORIAL
from benchmarks.results import Figure, Ratio, Results


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound on a ratio: `now` is what must not be lost again, `goal` is where to get."""

    about: str
    contestant: str
    connections: int
    figure: Figure
    to: str
    other: Figure | None = None
    now: float
    goal: float
    is_ceiling: bool = False

    def ratio(self, found: Results) -> Ratio | None:
        """Return the ratio in this run, or None where it lacks one of the two."""
        return found.ratio(
            self.figure, self.contestant, self.connections, to=self.to, other=self.other
        )

    def verdict(self, ratio: Ratio) -> str:
        """Return how the median stands to the two bounds."""
        if self._is_met(ratio.median, self.goal):
            return "met"
        return "on the way" if self._is_met(ratio.median, self.now) else "MISSED"

    def _is_met(self, value: float, bound: float) -> bool:
        return value <= bound if self.is_ceiling else value >= bound


GOALS = (
    Goal(
        about="receive / limit",
        contestant="sqlite",
        connections=64,
        figure=results.received,
        to=LIMIT,
        now=0.50,
        goal=0.60,
    ),
    Goal(
        about="receive / limit",
        contestant="sqlite",
        connections=256,
        figure=results.received,
        to=LIMIT,
        now=0.50,
        goal=0.70,
    ),
    Goal(
        about="receive / limit",
        contestant="postgresql",
        connections=64,
        figure=results.received,
        to=LIMIT,
        now=0.45,
        goal=0.50,
    ),
    Goal(
        about="receive / limit",
        contestant="postgresql",
        connections=256,
        figure=results.received,
        to=LIMIT,
        now=0.45,
        goal=0.55,
    ),
    Goal(
        about="receive / limit",
        contestant="mariadb",
        connections=64,
        figure=results.received,
        to=LIMIT,
        now=0.30,
        goal=0.35,
    ),
    Goal(
        about="receive / limit",
        contestant="mariadb",
        connections=256,
        figure=results.received,
        to=LIMIT,
        now=0.30,
        goal=0.40,
    ),
    Goal(
        about="ack p99 / limit's",
        contestant="sqlite",
        connections=64,
        figure=results.p99,
        to=LIMIT,
        now=3,
        goal=2,
        is_ceiling=True,
    ),
    Goal(
        about="handled / acked",
        contestant="sqlite",
        connections=64,
        figure=results.handled,
        to="sqlite",
        other=results.received,
        now=0.95,
        goal=0.95,
    ),
    Goal(
        about="handled / limit, with `session`",
        contestant="sqlite-session",
        connections=64,
        figure=results.handled,
        to=LIMIT,
        other=results.received,
        now=0.10,
        goal=0.10,
    ),
    Goal(
        about="receive / tutorial",
        contestant="sqlite",
        connections=64,
        figure=results.received,
        to=TUTORIAL,
        now=30,
        goal=30,
    ),
    Goal(
        about="receive / tutorial",
        contestant="sqlite",
        connections=1,
        figure=results.received,
        to=TUTORIAL,
        now=4,
        goal=4,
    ),
)
