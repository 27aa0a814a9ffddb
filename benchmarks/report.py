"""Writes results down: a page and a picture for people, and every window as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import picture, results
from benchmarks.contestants import CONTESTANTS, LIMIT, TUTORIAL
from benchmarks.goals import GOALS, Goal
from benchmarks.results import Ratio, Results

FOLDER = Path(__file__).with_name("results")
ABSENT = "-"

COLUMNS = (
    "contestant",
    "receive/s",
    "handled/s",
    "handled / acked",
    "ack p50 ms",
    "ack p99 ms",
    "receive / limit",
    "p99 / limit's",
    "receive / tutorial",
    "CPU us/event",
    "memory MB",
    "errors",
    "audit",
)
# Named in every table: what would be measured, but cannot be.
UNMEASURED = {"knockerlite": "its wheels need Python 3.12 or newer"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: when, on what, with which options, who was left out and why, and what came out."""

    date: str
    environment: dict[str, str]
    absent: dict[str, str]
    rounds: int
    seconds: int
    results: Results


def write(run: Run) -> str:
    """Write `latest.md`, `latest.svg` and `latest.json`; return the page."""
    page = render(run)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "latest.md").write_text(page)
    if drawn := picture.draw(run.results):
        (FOLDER / "latest.svg").write_text(drawn)
    encoded = msgspec.json.format(msgspec.json.encode(run), indent=1)
    (FOLDER / "latest.json").write_bytes(encoded + b"\n")
    return page


def render(run: Run) -> str:
    """Return the page."""
    found = run.results
    parts = [f"# Benchmark results, {run.date}", _conditions(run), _legend(found)]
    for connections in found.connections():
        parts.append(f"## {connections} {'connection' if connections == 1 else 'connections'}")
        names = [one.name for one in CONTESTANTS if found.has(one.name, connections)]
        rows = [_row(found, name, connections) for name in names]
        parts.append(_table(COLUMNS, rows))
    goals = [_goal_row(goal, ratio) for goal in GOALS if (ratio := goal.measured(found))]
    if goals:
        parts.append("## Goals")
        header = ("what", "contestant", "connections", "measured", "now", "goal", "")
        parts.append(_table(header, goals))
    return "\n\n".join(parts) + "\n"


def _conditions(run: Run) -> str:
    facts = "; ".join(f"{name} {value}" for name, value in run.environment.items())
    left_out = "; ".join(f"{name} ({why})" for name, why in run.absent.items())
    return (
        f"Median of {run.rounds} interleaved rounds of {run.seconds} s. Ratios are taken within a "
        f"round; in parentheses, their spread. One fsync took {_fsyncs(run.results)} ms.\n\n"
        f"{facts}.\n\nLeft out: {left_out or 'nobody'}."
    )


def _fsyncs(found: Results) -> str:
    medians = [
        value
        for name in found.contestants()
        for connections in found.connections()
        if (value := found.median(results.fsync, name, connections)) is not None
    ]
    return f"{min(medians):.2f} to {max(medians):.2f}" if medians else ABSENT


def _legend(found: Results) -> str:
    names = found.contestants()
    return "\n".join(
        f"- `{contestant.name}`: {contestant.about}. Acked: {contestant.acked}"
        for contestant in CONTESTANTS
        if contestant.name in names
    )


def _row(found: Results, name: str, connections: int) -> list[str]:
    failures = found.failures(name, connections)
    if failures:
        # The speed of what loses events is no speed.
        unknown = [ABSENT] * (len(COLUMNS) - 2)
        return [name, *unknown, f"FAILED: {'; '.join(failures)}"]
    of_limit = found.ratio(results.received, name, connections, to=LIMIT)
    latency = found.ratio(results.p99, name, connections, to=LIMIT)
    of_tutorial = found.ratio(results.received, name, connections, to=TUTORIAL)
    of_acked = found.ratio(results.handled, name, connections, to=name, other=results.received)
    return [
        name,
        _number(found.median(results.received, name, connections), 0),
        _number(found.median(results.handled, name, connections), 0),
        _number(of_acked.median if of_acked else None, 2),
        _number(found.median(results.p50, name, connections), 1),
        _number(found.median(results.p99, name, connections), 1),
        _ratio(of_limit, 2),
        _ratio(latency, 1),
        _ratio(of_tutorial, 1),
        _number(found.median(results.cpu, name, connections), 0),
        _number(found.median(results.memory, name, connections), 0),
        _number(found.total(results.errors, name, connections), 0),
        _audit(found, name, connections),
    ]


def _audit(found: Results, name: str, connections: int) -> str:
    waiting = found.total(results.waiting, name, connections)
    return f"passed, {waiting:,} still waited" if waiting else "passed"


def _goal_row(goal: Goal, ratio: Ratio) -> list[str]:
    sign = "<=" if goal.is_ceiling else ">="
    return [
        goal.about,
        goal.contestant,
        str(goal.connections),
        _ratio(ratio, 2),
        f"{sign} {goal.goal if goal.now is None else goal.now:g}",
        f"{sign} {goal.goal:g}",
        goal.verdict(ratio),
    ]


def _number(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:,.{digits}f}"


def _ratio(ratio: Ratio | None, digits: int) -> str:
    if ratio is None:
        return ABSENT
    spread = f"{ratio.least:.{digits}f}-{ratio.most:.{digits}f}"
    return f"{ratio.median:.{digits}f} ({spread})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # Padded, so that the page reads as well in a terminal.
    table = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in table
    ]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([lines[0], rule, *lines[1:]])
