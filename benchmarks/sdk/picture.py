"""Draws how many times less than openai each client takes, as SVG: a panel for each measure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.sdk import measures
from benchmarks.sdk.contestants import OPENAI, OURS
from benchmarks.sdk.measures import Measure
from benchmarks.sdk.results import Results
from benchmarks.svg import FAINT, OTHER, OWN, bar, page, text, upright

PANELS = (
    measures.IMPORT,
    measures.FIRST_ANSWER,
    measures.MEMORY,
    measures.REQUEST,
    measures.IN_FLIGHT,
    measures.TLS,
    measures.BURST,
    measures.BURST_ASYNC,
    measures.LIVE,
    measures.LIVE_ASYNC,
    measures.EMBEDDINGS,
    measures.EMBEDDINGS_DEFAULT,
)
ACROSS = 3
WIDTH = 320
LABEL = 88
BAR = 150
LINE = 18
TITLE = 34
GAP = 24
TOP = 54
LABEL_FOR_READERS = "How many times less processor time or memory than openai clients take"


def draw(found: Results, names: Sequence[str]) -> str:
    """Return the picture."""
    panels = [(measure, _bars(found, measure, names)) for measure in PANELS]
    panels = [(measure, bars) for measure, bars in panels if bars]
    largest = max((value for _, bars in panels for _, value in bars), default=1.0)
    rows = [panels[start : start + ACROSS] for start in range(0, len(panels), ACROSS)]
    parts = [
        text(GAP, 24, "Times less than openai", size=15, weight=600),
        text(GAP, 42, "processor time, or memory; longer is better; bars are logarithmic", FAINT),
    ]
    y = TOP
    for row in rows:
        for column, (measure, bars) in enumerate(row):
            parts += _panel(GAP + column * (WIDTH + GAP), y, measure, bars, largest)
        y += TITLE + LINE * max(len(bars) for _, bars in row) + GAP
    return page(GAP + ACROSS * (WIDTH + GAP), y, LABEL_FOR_READERS, parts)


def _bars(found: Results, measure: Measure, names: Sequence[str]) -> list[tuple[str, float]]:
    bars = []
    for name in names:
        ratio = found.times_less(measure.name, name, than=OPENAI)
        if ratio is not None:
            bars.append((name, ratio.median))
    return bars


def _panel(
    x: int, y: int, measure: Measure, bars: list[tuple[str, float]], largest: float
) -> list[str]:
    parts = [text(x, y + 20, measure.title, weight=600)]
    axis = x + LABEL
    bottom = y + TITLE + LINE * len(bars)
    for position, (name, value) in enumerate(bars):
        top = y + TITLE + LINE * position
        # Shorter than nothing, to the left of the line, is what takes more than openai.
        length = BAR * math.log(value) / math.log(max(largest, 2))
        left, width = (axis, length) if length >= 0 else (axis + max(length, -8), min(-length, 8))
        colour = OWN if name == OURS else OTHER
        weight = 600 if name == OURS else 400
        parts += [
            text(axis - 14, top + 10, name, weight=weight, anchor="end"),
            bar(left, top, width, colour),
            text(int(axis + max(length, 0)) + 6, top + 10, f"{value:.1f}", weight=weight),
        ]
    parts.append(upright(axis, y + TITLE - 4, bottom - 2))
    return parts
