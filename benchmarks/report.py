"""Writes results down: a page and a picture for people, and every window as JSON."""

from dataclasses import dataclass

from benchmarks import pages, picture, results
from benchmarks.contestants import CONTESTANTS, LIMIT, TUTORIAL
from benchmarks.goals import GOALS, Goal
from benchmarks.pages import ABSENT, number, table
from benchmarks.results import Ratio, Results

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
    pages.write("latest", page, picture.draw(run.results), run)
    return page


def render(run: Run) -> str:
    """Return the page."""
    found = run.results
    parts = [f"# Benchmark results, {run.date}", _conditions(run), _legend(found)]
    for connections in found.connections():
        parts.append(f"## {connections} {'connection' if connections == 1 else 'connections'}")
        names = [one.name for one in CONTESTANTS if found.has(one.name, connections)]
        rows = [list(cells(found, name, connections).values()) for name in names]
        parts.append(table(COLUMNS, rows))
    goals = [_goal_row(goal, ratio) for goal in GOALS if (ratio := goal.measured(found))]
    if goals:
        parts.append("## Goals")
        header = ("what", "contestant", "connections", "measured", "now", "goal", "")
        parts.append(table(header, goals))
    return "\n\n".join(parts) + "\n"


def _conditions(run: Run) -> str:
    facts = "; ".join(f"{name} {value}" for name, value in run.environment.items())
    left_out = "; ".join(f"{name} ({why})" for name, why in run.absent.items())
    return (
        f"Median of {run.rounds} interleaved rounds of {run.seconds} s. Ratios are taken within a "
        f"round; in parentheses, their spread. One fsync took {fsyncs(run.results)} ms.\n\n"
        f"{facts}.\n\nLeft out: {left_out or 'nobody'}."
    )


def fsyncs(found: Results) -> str:
    """Return the shortest and the longest of the medians."""
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


def cells(found: Results, name: str, connections: int) -> dict[str, str]:
    """Return what is below each of `COLUMNS`."""
    failures = found.failures(name, connections)
    if failures:
        # The speed of what loses events is no speed.
        unknown = dict.fromkeys(COLUMNS, ABSENT)
        return unknown | {"contestant": name, "audit": f"FAILED: {'; '.join(failures)}"}
    of_limit = found.ratio(results.received, name, connections, to=LIMIT)
    latency = found.ratio(results.p99, name, connections, to=LIMIT)
    of_tutorial = found.ratio(results.received, name, connections, to=TUTORIAL)
    of_acked = found.ratio(results.handled, name, connections, to=name, other=results.received)
    row = [
        name,
        number(found.median(results.received, name, connections), 0),
        number(found.median(results.handled, name, connections), 0),
        number(of_acked.median if of_acked else None, 2),
        number(found.median(results.p50, name, connections), 1),
        number(found.median(results.p99, name, connections), 1),
        _ratio(of_limit, 2),
        _ratio(latency, 1),
        _ratio(of_tutorial, 1),
        number(found.median(results.cpu, name, connections), 0),
        number(found.median(results.memory, name, connections), 0),
        number(found.total(results.errors, name, connections), 0),
        _audit(found, name, connections),
    ]
    return dict(zip(COLUMNS, row, strict=True))


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


def _ratio(ratio: Ratio | None, digits: int) -> str:
    if ratio is None:
        return ABSENT
    spread = f"{ratio.least:.{digits}f}-{ratio.most:.{digits}f}"
    return f"{ratio.median:.{digits}f} ({spread})"
