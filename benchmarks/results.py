"""From windows to figures: medians over the rounds, and ratios within each of them.

A ratio is taken between two contestants of one round, minutes apart at most, and its median
and spread over the rounds are shown: a noisy machine slows both sides of it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from statistics import median

from benchmarks.window import Figures, Window

Figure = Callable[[Figures], float | None]


@dataclass(frozen=True)
class Ratio:
    """A median over the rounds, and the smallest and largest of them."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Results:
    """All windows of one run."""

    windows: tuple[Window, ...]

    def contestants(self) -> list[str]:
        """Return the names in the order in which they first ran."""
        return list(dict.fromkeys(window.contestant for window in self.windows))

    def connections(self) -> list[int]:
        """Return the numbers of connections."""
        return sorted({window.connections for window in self.windows})

    def has(self, contestant: str, connections: int) -> bool:
        """Tell whether a contestant ran with so many connections."""
        return bool(self._select(contestant, connections))

    def failures(self, contestant: str, connections: int) -> list[str]:
        """Return what went wrong in any round, each thing once."""
        selected = self._select(contestant, connections)
        return list(dict.fromkeys(failure for window in selected for failure in window.failures))

    def total(self, figure: Figure, contestant: str, connections: int) -> int:
        """Return the sum of a figure over the rounds."""
        return int(sum(self._values(figure, contestant, connections).values()))

    def median(self, figure: Figure, contestant: str, connections: int) -> float | None:
        """Return the median of a figure over the rounds, or None if there is none."""
        values = self._values(figure, contestant, connections)
        return median(values.values()) if values else None

    def spread(self, figure: Figure, contestant: str, connections: int) -> Ratio | None:
        """Return a figure's median over the rounds with the smallest and the largest."""
        return _spread(self._values(figure, contestant, connections).values())

    def ratio(
        self,
        figure: Figure,
        contestant: str,
        connections: int,
        *,
        to: str,
        other: Figure | None = None,
    ) -> Ratio | None:
        """Compare a figure with `other`, by default the same one, of the contestant `to`."""
        ours = self._values(figure, contestant, connections)
        theirs = self._values(other or figure, to, connections)
        ratios = [value / theirs[lap] for lap, value in ours.items() if theirs.get(lap)]
        return _spread(ratios)

    def _values(self, figure: Figure, contestant: str, connections: int) -> dict[int, float]:
        values = {}
        for window in self._select(contestant, connections):
            value = figure(window.figures) if window.figures else None
            if value is not None and not window.failures:
                values[window.round_number] = value
        return values

    def _select(self, contestant: str, connections: int) -> list[Window]:
        return [
            window
            for window in self.windows
            if window.contestant == contestant and window.connections == connections
        ]


def _spread(values: Collection[float]) -> Ratio | None:
    return Ratio(median(values), min(values), max(values)) if values else None


def received(figures: Figures) -> float:
    """Return the events acknowledged per second."""
    return figures.received_per_second


def handled(figures: Figures) -> float | None:
    """Return the events handled per second while the load lasted."""
    return figures.handled_per_second


def p50(figures: Figures) -> float:
    """Return the median time to the answer, in milliseconds."""
    return figures.p50_ms


def p50_and_fsync(figures: Figures) -> float:
    """Return that and the time of one fsync: what it would be, had each answer waited for one."""
    return figures.p50_ms + figures.fsync_ms


def fsync(figures: Figures) -> float:
    """Return the time of one fsync, in milliseconds."""
    return figures.fsync_ms


def waiting(figures: Figures) -> int:
    """Return the events that had not been handled when the window was closed."""
    return figures.waiting


def p99(figures: Figures) -> float:
    """Return the time within which 99 % are answered, in milliseconds."""
    return figures.p99_ms


def cpu(figures: Figures) -> float:
    """Return the server's processor time per acknowledged event, in microseconds."""
    return figures.cpu_us_per_event


def memory(figures: Figures) -> float:
    """Return the server's largest resident set, in megabytes."""
    return figures.peak_memory_mb


def errors(figures: Figures) -> int:
    """Return the deliveries that were not acknowledged: refused, cut off or timed out."""
    return figures.load.refused + figures.load.broken + figures.load.timeouts
