"""Writes results down: a page for people, a picture, and every window as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import pages
from benchmarks.pages import ABSENT, number, table
from benchmarks.sdk import measures, picture
from benchmarks.sdk.contestants import CONTESTANTS, OPENAI
from benchmarks.sdk.goals import GOALS, Ceiling, Goal
from benchmarks.sdk.measures import Measure
from benchmarks.sdk.results import Results
from benchmarks.sdk.start import PYTHON

NAME = "sdk-latest"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: when, on what, with which options, who took part, and what came out."""

    date: str
    environment: dict[str, str]
    rounds: int
    seconds: float
    contestants: tuple[str, ...]
    absent: tuple[str, ...]
    results: Results


def write(run: Run) -> str:
    """Write page, picture and JSON; return the page."""
    page = render(run)
    pages.write(NAME, page, picture.draw(run.results, run.contestants), run)
    return page


def render(run: Run) -> str:
    """Return the page."""
    found = run.results
    names = [*run.contestants, PYTHON]
    measured = [measure for measure in measures.ALL if measure.name in found.measures()]
    parts = [
        f"# What the clients cost, {run.date}",
        _conditions(run),
        f"![Times less than openai]({NAME}.svg)",
        _legend(run),
        "## Cost",
        table(("", *names), (_costs(found, measure, names) for measure in measured)),
        "## Times less than openai",
        table(
            ("", *names), (_ratios(found, m, names) for m in measured if m not in measures.SOAKS)
        ),
        "## Goals of `ours`",
        table(
            ("goal", "measured", "default", "", "with [fast]", ""),
            (row for goal in GOALS if (row := _goal(found, goal))),
        ),
        _failures(found, run.contestants),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(run: Run) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in run.environment.items())
    return (
        f"Processor time of the client's process, not time on the clock: medians of {run.rounds} "
        f"interleaved rounds, windows of {run.seconds:g} s. Ratios are taken within a round; in "
        f"parentheses, their spread.\n{facts}."
    )


def _legend(run: Run) -> str:
    clients = [
        f"- `{contestant.name}`: {contestant.about}"
        for contestant in CONTESTANTS
        if contestant.name in run.contestants
    ]
    absent = [f"- not installed, so not measured: {', '.join(run.absent)}"] if run.absent else []
    figures = [
        f"- *{measure.title}*: {measure.about}"
        for measure in measures.ALL
        if measure.name in run.results.measures()
    ]
    return "\n".join([*clients, *absent, "", *figures])


def _costs(found: Results, measure: Measure, names: Sequence[str]) -> list[str]:
    title = f"{measure.title}, {measure.unit}" if measure.unit else measure.title
    return [title, *(_cost(found, measure, name) for name in names)]


def _cost(found: Results, measure: Measure, name: str) -> str:
    if found.failures(measure.name, name):
        return "FAILED"
    return number(found.median(measure.name, name), measure.digits)


def _ratios(found: Results, measure: Measure, names: Sequence[str]) -> list[str]:
    return [measure.title, *(_ratio(found, measure, name) for name in names)]


def _ratio(found: Results, measure: Measure, name: str) -> str:
    ratio = found.times_less(measure.name, name, than=OPENAI)
    if ratio is None:
        return ABSENT
    return f"{ratio.median:.1f} ({ratio.least:.1f}-{ratio.most:.1f})"


def _goal(found: Results, goal: Goal | Ceiling) -> list[str] | None:
    result = goal.found(found)
    if result is None:
        return None
    value, shown = result
    return [
        goal.title,
        shown,
        *(goal.show(goal.bound), goal.verdict(value, goal.bound)),
        *(goal.show(goal.fast), goal.verdict(value, goal.fast)),
    ]


def _failures(found: Results, names: Sequence[str]) -> str:
    lines = [
        f"- `{name}`, {measure.title}: {'; '.join(failures)}"
        for measure in measures.ALL
        for name in names
        if (failures := found.failures(measure.name, name))
    ]
    return "\n".join(["## Failures", "", *lines]) if lines else ""
