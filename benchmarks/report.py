"""Writes results down: a page for people, and every window as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import results
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


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: when, on what, with which options, and what came out."""

    date: str
    environment: dict[str, str]
    rounds: int
    seconds: int
    results: Results


def write(run: Run) -> str:
    """Write `latest.md` and `latest.json`; return the page."""
    page = render(run)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "latest.md").write_text(page)
    encoded = msgspec.json.format(msgspec.json.encode(run), indent=1)
    (FOLDER / "latest.json").write_bytes(encoded + b"\n")
    return page


def render(run: Run) -> str:
    """Return the page."""
    found = run.results
    parts = [f"# Benchmark results, {run.date}", _conditions(run), _legend(found)]
    for connections in found.connections():
        parts.append(f"## {connections} {'connection' if connections == 1 else 'connections'}")
        rows = [_row(found, name, connections) for name in found.contestants()]
        parts.append(_table(COLUMNS, rows))
    goals = [_goal_row(goal, ratio) for goal in GOALS if (ratio := goal.ratio(found))]
    if goals:
        parts.append("## Goals")
        header = ("ratio", "contestant", "connections", "measured", "now", "goal", "")
        parts.append(_table(header, goals))
    return "\n\n".join(parts) + "\n"


def _conditions(run: Run) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in run.environment.items())
    return (
        f"Median of {run.rounds} interleaved rounds of {run.seconds} s, one server process. "
        f"Ratios are taken within a round; in parentheses, their spread.\n{facts}."
    )


def _legend(found: Results) -> str:
    names = found.contestants()
    return "\n".join(
        f"- `{contestant.name}`: {contestant.about}"
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
        "passed",
    ]


def _goal_row(goal: Goal, ratio: Ratio) -> list[str]:
    sign = "<=" if goal.is_ceiling else ">="
    return [
        goal.about,
        goal.contestant,
        str(goal.connections),
        _ratio(ratio, 2),
        f"{sign} {goal.now:g}",
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
