"""What the SDK has to reach: times less than another client in the same run, or an amount."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.sdk import measures
from benchmarks.sdk.contestants import ANIMICA_AI, OPENAI, OURS
from benchmarks.sdk.measures import Measure
from benchmarks.sdk.results import Results

MET = "met"
MISSED = "MISSED"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """How many times less than another client, at least.

    Attributes:
        bound: with what everybody has.
        fast: with the transport of the `[fast]` extra; while there is none of its own, it is asked
            of the same figures.
    """

    measure: Measure
    than: str = OPENAI
    bound: float
    fast: float

    @property
    def title(self) -> str:
        """What is compared with whom."""
        return f"{self.measure.title}, times less than {self.than}"

    def found(self, results: Results) -> tuple[float, str] | None:
        """Return the median, and how to show it; None where it was not measured."""
        ratio = results.times_less(self.measure.name, OURS, than=self.than)
        if ratio is None:
            return None
        return ratio.median, f"{ratio.median:.1f} ({ratio.least:.1f}-{ratio.most:.1f})"

    def verdict(self, value: float, bound: float) -> str:
        """Return whether a value keeps to a bound."""
        return MET if value >= bound else MISSED

    def show(self, bound: float) -> str:
        """Return a bound as the table has it."""
        return f">= {bound:.3g}"


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """An amount that is not to be passed, whatever others do."""

    measure: Measure
    bound: float

    @property
    def fast(self) -> float:
        """The same with every transport."""
        return self.bound

    @property
    def title(self) -> str:
        """What is bounded."""
        unit = f", {self.measure.unit}" if self.measure.unit else ""
        return f"{self.measure.title}{unit}"

    def found(self, results: Results) -> tuple[float, str] | None:
        """Return the median, and how to show it; None where it was not measured."""
        value = results.median(self.measure.name, OURS)
        return None if value is None else (value, f"{value:.{self.measure.digits}f}")

    def verdict(self, value: float, bound: float) -> str:
        """Return whether a value keeps to a bound."""
        return MET if value <= bound else MISSED

    def show(self, bound: float) -> str:
        """Return a bound as the table has it."""
        return f"<= {bound:g}"


GOALS = (
    Goal(measure=measures.IMPORT, bound=10, fast=10),
    # At most 1.3 times as much.
    Goal(measure=measures.IMPORT, than=ANIMICA_AI, bound=1 / 1.3, fast=1 / 1.3),
    Goal(measure=measures.FIRST_ANSWER, bound=5, fast=10),
    Goal(measure=measures.MEMORY, bound=2, fast=2.5),
    Goal(measure=measures.REQUEST, bound=4, fast=10),
    Goal(measure=measures.IN_FLIGHT, bound=4, fast=20),
    Goal(measure=measures.BURST, bound=15, fast=40),
    Goal(measure=measures.BURST_ASYNC, bound=15, fast=40),
    Goal(measure=measures.LIVE, bound=5, fast=9),
    Goal(measure=measures.LIVE_ASYNC, bound=5, fast=9),
    Goal(measure=measures.EMBEDDINGS, bound=20, fast=20),
    Ceiling(measure=measures.SOAK_MEMORY, bound=0.5),
    Ceiling(measure=measures.SOAK_MEMORY_ASYNC, bound=0.5),
    Ceiling(measure=measures.SOAK_DESCRIPTORS, bound=0),
    Ceiling(measure=measures.SOAK_DESCRIPTORS_ASYNC, bound=0),
)
