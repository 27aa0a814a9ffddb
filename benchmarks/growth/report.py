"""Writes down what came out: a page and a picture for people, and every window as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import pages, replay
from benchmarks.contestants import LIMIT
from benchmarks.growth import picture, tables
from benchmarks.growth.curves import Curve
from benchmarks.growth.tables import Measure
from benchmarks.pages import table
from benchmarks.replay import Replay
from benchmarks.report import cells, fsyncs
from benchmarks.results import Results

NAME = "growth-latest"
# Of the other report's: the limit is not measured beside all that grows.
COLUMNS = (
    "receive/s",
    "handled/s",
    "handled / acked",
    "ack p50 ms",
    "ack p99 ms",
    "CPU us/event",
    "memory MB",
    "errors",
    "audit",
)
BESIDE_LIMIT = ("receive/s", "receive / limit", *COLUMNS[1:])


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: when, on what, with which options, who was left out and why, and what came out."""

    date: str
    environment: dict[str, str]
    absent: dict[str, str]
    rounds: int
    seconds: int
    times: int
    curves: tuple[Curve, ...]
    results: Results
    measures: tuple[Measure, ...]
    replays: tuple[Replay, ...]

    def is_failed(self) -> bool:
        """Tell whether anything has no figure that should have one."""
        found = [*self.measures, *self.replays]
        return any(w.failures for w in self.results.windows) or any(one.failure for one in found)


def write(run: Run) -> str:
    """Write page, picture and JSON; return the page."""
    page = render(run)
    drawn = picture.draw(run.curves, run.results, run.measures, run.replays)
    pages.write(NAME, page, drawn, run)
    return page


def render(run: Run) -> str:
    """Return the page."""
    parts = [
        f"# Growth, {run.date}",
        _conditions(run),
        f"![Rates and times as things grow]({NAME}.svg)",
        *(part for curve in run.curves for part in _curve(curve, run.results)),
        *_tables(run),
    ]
    if run.replays:
        rows = (one.row for one in run.replays)
        parts += ["## Replays", table(replay.COLUMNS, rows)]
    return "\n\n".join(parts) + "\n"


def _conditions(run: Run) -> str:
    facts = "; ".join(f"{name} {value}" for name, value in run.environment.items())
    left_out = "; ".join(f"{name} ({why})" for name, why in run.absent.items())
    rounds = "One round" if run.rounds == 1 else f"Median of {run.rounds} rounds"
    fsync = f" One fsync took {fsyncs(run.results)} ms." if run.curves else ""
    return (
        f"{rounds} of windows of {run.seconds} s, {run.times} inserts and claims beside each "
        "number of events, one replay of each number. What does not grow is one handler, bodies of "
        f"1 KB and 64 connections.{fsync}\n\n"
        f"{facts}.\n\nLeft out: {left_out or 'nobody'}."
    )


def _curve(curve: Curve, found: Results) -> Iterator[str]:
    columns = BESIDE_LIMIT if LIMIT in curve.contestants else COLUMNS
    rows = []
    for point in curve.points():
        row = cells(found, point.name, point.connections)
        size = f"{getattr(point, curve.field):,}"
        rows.append([point.contestant, size, *(row[column] for column in columns)])
    yield f"## {curve.title.capitalize()}"
    yield table(("contestant", curve.title, *columns), rows)


def _tables(run: Run) -> Iterator[str]:
    if run.measures:
        yield "## Events in the tables"
        yield table(tables.COLUMNS, (measure.row for measure in run.measures))
    if kept := list(tables.kept(run.measures)):
        yield "\n".join(f"- {line}" for line in kept)
