"""Draws rates and times as things grow, as SVG: a row for what grows, a panel for each figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import results
from benchmarks.contestants import LIMIT
from benchmarks.goals import OURS
from benchmarks.growth.curves import BODIES, Curve
from benchmarks.growth.tables import CLAIM, INSERT, Measure, Times
from benchmarks.replay import Figures, Replay
from benchmarks.results import Figure, Results
from benchmarks.svg import FAINT, OTHER, OWN, curve, level, page, text, upright

TITLE = "How ours fare as things grow, one machine"
NOTE = "scales of what grows are logarithmic, and so are those of times to an answer; x: failed"
COLOURS = {LIMIT: OTHER, **dict(zip(OURS, (OWN, "#0969da", "#cf6a00"), strict=True))}
GAP = 24
TOP = 66
# Of a panel: its title, the figures at its axis, the plot, and what is below.
HEAD, LABEL, WIDTH, HEIGHT, FOOT = 26, 44, 190, 110, 38
ROW_TITLE = 24
STEPS = 4
MARGIN = 8


@dataclass(frozen=True)
class Line:
    """One contestant's figures by size; those that failed are None."""

    contestant: str
    points: dict[int, float | None]


@dataclass(frozen=True)
class Panel:
    """A figure of all contestants."""

    title: str
    lines: Sequence[Line]
    is_log: bool = False

    def sizes(self) -> list[int]:
        """Return all sizes."""
        return sorted({size for line in self.lines for size in line.points})

    def values(self) -> list[float]:
        """Return all figures."""
        return [v for line in self.lines for v in line.points.values() if v is not None]


@dataclass(frozen=True)
class Row:
    """The panels of one thing that grows."""

    title: str
    panels: Sequence[Panel]
    show: Callable[[int], str]


@dataclass(frozen=True)
class Scale:
    """From figures to pixels."""

    least: float
    most: float
    start: float
    end: float
    is_log: bool

    def __call__(self, value: float) -> float:
        """Return where a figure is."""
        least, most, here = self.least, self.most, max(value, self.least)
        if self.is_log:
            least, most, here = math.log(least), math.log(most), math.log(here)
        return self.start + (self.end - self.start) * (here - least) / (most - least)


def draw(
    curves: Sequence[Curve],
    found: Results,
    measures: Sequence[Measure],
    replays: Sequence[Replay],
) -> str | None:
    """Return the picture, or None where nothing was measured that has a place in it."""
    rows = [*(_received(one, found) for one in curves)]
    rows += [*_stored(measures), *_replayed(replays)]
    if not rows:
        return None
    parts = [text(GAP, 26, TITLE, size=15, weight=600), text(GAP, 44, NOTE, FAINT)]
    across = max(len(row.panels) for row in rows)
    width = GAP + across * (LABEL + WIDTH + GAP)
    parts += _legend(rows, width)
    y = TOP
    for row in rows:
        parts.append(text(GAP, y + 12, row.title, size=13, weight=600))
        for column, panel in enumerate(row.panels):
            parts += _panel(GAP + column * (LABEL + WIDTH + GAP), y + ROW_TITLE, panel, row.show)
        y += ROW_TITLE + HEAD + HEIGHT + FOOT
    return page(width, y, TITLE, parts)


# What is drawn


def _received(grown: Curve, found: Results) -> Row:
    """Return the row of something that grows while deliveries are received."""

    def panel(title: str, figure: Figure, *, is_log: bool) -> Panel:
        lines = [
            Line(name, {size: _median(grown, name, size, figure, found) for size in grown.sizes})
            for name in grown.contestants
            if not (name == LIMIT and figure is results.handled)
        ]
        return Panel(title, lines, is_log=is_log)

    # From hundreds to tens of thousands, of which a scale from zero would show the upper half.
    is_body = grown.field == BODIES.field
    panels = (
        panel("received a second", results.received, is_log=is_body),
        panel("handled a second", results.handled, is_log=is_body),
        panel("half are answered within, ms", results.p50, is_log=True),
        panel("99 % are answered within, ms", results.p99, is_log=True),
    )
    return Row(grown.title.capitalize(), panels, _bytes if is_body else _count)


def _median(
    grown: Curve, contestant: str, size: int, figure: Figure, found: Results
) -> float | None:
    point = grown.point(contestant, size)
    if found.failures(point.name, point.connections):
        return None
    return found.median(figure, point.name, point.connections)


def _stored(measures: Sequence[Measure]) -> Iterator[Row]:
    """Return the row of inserts and claims; with what else is pending, they are in the table."""
    drawn = [one for one in measures if one.size.finished and not one.size.pending]

    def panel(title: str, what: str, figure: Callable[[Times], float]) -> Panel:
        lines: dict[str, dict[int, float | None]] = {}
        for one in drawn:
            if one.what == what:
                value = figure(one.times) if one.times else None
                lines.setdefault(one.contestant, {})[one.size.finished] = value
        return Panel(title, [Line(*line) for line in lines.items()])

    panels = [
        panel(f"{what}, {label} ms", what, figure)
        for what in (INSERT, CLAIM)
        for label, figure in (("p50", lambda t: t.p50_ms), ("p99", lambda t: t.p99_ms))
    ]
    if panels[0].lines:
        yield Row("Events in the tables", panels, _count)


def _replayed(replays: Sequence[Replay]) -> Iterator[Row]:
    def panel(title: str, figure: Callable[[Figures], float]) -> Panel:
        lines: dict[str, dict[int, float | None]] = {}
        for one in replays:
            value = figure(one.figures) if one.figures else None
            lines.setdefault(one.contestant, {})[one.asked] = value
        return Panel(title, [Line(*line) for line in lines.items()])

    if replays:
        panels = (
            panel("replayed a second", lambda found: found.replayed_per_second),
            panel("... of the rate live", lambda found: found.of_live),
            panel("memory of the replay, MB", lambda found: found.replay_memory_mb),
            panel("memory of the server, MB", lambda found: found.server_memory_after_mb),
        )
        yield Row("Events replayed", panels, _count)


# How


def _legend(rows: Sequence[Row], width: float) -> Iterator[str]:
    present = {line.contestant for row in rows for panel in row.panels for line in panel.lines}
    x = width - GAP
    for name, colour in reversed(COLOURS.items()):
        if name in present:
            yield text(x, 26, name, anchor="end")
            x -= 7 * len(name) + 10
            yield from curve([(x - 18, 22), (x, 22)], colour)
            x -= 40


def _panel(x: float, y: float, panel: Panel, show: Callable[[int], str]) -> Iterator[str]:
    left, right = x + LABEL, x + LABEL + WIDTH
    top, bottom = y + HEAD, y + HEAD + HEIGHT
    yield text(left, y + 14, panel.title)
    ticks = _ticks(panel)
    sizes = panel.sizes()
    up = Scale(ticks[0], ticks[-1], bottom, top, panel.is_log)
    along = Scale(sizes[0], max(sizes[-1], sizes[0] + 1), left + MARGIN, right - MARGIN, True)
    for tick in ticks:
        yield level(up(tick), left, right)
        yield text(left - 6, round(up(tick) + 4, 1), _figure(tick), FAINT, size=11, anchor="end")
    yield upright(left, top, bottom)
    for size in sizes:
        yield text(round(along(size), 1), bottom + 16, show(size), FAINT, size=11, anchor="middle")
    for line in panel.lines:
        yield from _line(line, along, up, bottom)


def _line(line: Line, along: Scale, up: Scale, bottom: float) -> Iterator[str]:
    colour = COLOURS[line.contestant]
    stretch: list[tuple[float, float]] = []
    for size, value in sorted(line.points.items()):
        if value is not None:
            stretch.append((along(size), up(value)))
            continue
        # The line breaks off where a point has no figure; those of several are side by side.
        x = along(size) + 8 * ([*COLOURS].index(line.contestant) - 2)
        yield text(round(x, 1), bottom - 3, "x", colour, weight=600, anchor="middle")
        if stretch:
            yield from curve(stretch, colour)
        stretch = []
    if stretch:
        yield from curve(stretch, colour)


def _ticks(panel: Panel) -> list[float]:
    """Return round figures, the first and last of which are the ends of the axis."""
    # Nothing at all has no place on a logarithmic axis but its end.
    values = [value for value in panel.values() if value > 0] or [1.0]
    most = max(values)
    if panel.is_log:
        first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(most))
        return [10.0**power for power in range(first, max(last, first + 1) + 1)]
    rough = most / STEPS
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= rough)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def _figure(value: float) -> str:
    return f"{value:,.10g}"


def _count(size: int) -> str:
    for unit, name in ((1_000_000, "M"), (10_000, "k")):
        if size >= unit:
            return f"{size / (1000 if name == 'k' else unit):g} {name}"
    return f"{size:,}"


def _bytes(size: int) -> str:
    for unit, name in ((1 << 20, "MB"), (1 << 10, "KB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"
