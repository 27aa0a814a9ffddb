"""From windows to figures: medians over the rounds, and ratios within each of them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """A median over the rounds, and the smallest and largest of them."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Window:
    """One measure of one client in one round: a value, or what went wrong."""

    measure: str
    contestant: str
    round_number: int
    value: float | None
    failure: str | None = None


@dataclass(frozen=True)
class Results:
    """All windows of one run."""

    windows: tuple[Window, ...]

    def measures(self) -> set[str]:
        """Return the names of what was measured."""
        return {window.measure for window in self.windows}

    def failures(self, measure: str, contestant: str) -> list[str]:
        """Return what went wrong in any round, each thing once."""
        found = (w.failure for w in self._select(measure, contestant) if w.failure)
        return list(dict.fromkeys(found))

    def median(self, measure: str, contestant: str) -> float | None:
        """Return the median over the rounds; None if there is none, or if one went wrong."""
        values = self._values(measure, contestant)
        return median(values.values()) if values else None

    def times_less(self, measure: str, contestant: str, *, than: str) -> Ratio | None:
        """Return how many times less of it a client takes than another, round by round."""
        ours = self._values(measure, contestant)
        theirs = self._values(measure, than)
        ratios = [theirs[lap] / value for lap, value in ours.items() if lap in theirs and value > 0]
        return Ratio(median(ratios), min(ratios), max(ratios)) if ratios else None

    def _values(self, measure: str, contestant: str) -> dict[int, float]:
        # A client that once brought something wrong has no figure at all.
        if self.failures(measure, contestant):
            return {}
        selected = self._select(measure, contestant)
        return {w.round_number: w.value for w in selected if w.value is not None}

    def _select(self, measure: str, contestant: str) -> list[Window]:
        return [w for w in self.windows if (w.measure, w.contestant) == (measure, contestant)]
