"""Draws who receives how much, and how long senders wait, as SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import results
from benchmarks.contestants import CONTESTANTS
from benchmarks.results import Figure, Results
from benchmarks.svg import FAINT, INK, OTHER, OWN, bar, page, text, upright

CONNECTIONS = 64
LABEL = 150
BAR = 260
NUMBER = 70
EARLY = "*"
LINE = 18
TOP = 84
GAP = 24


@dataclass(frozen=True)
class Panel:
    """A figure of everybody's, side by side."""

    title: str
    figure: Figure
    show: Callable[[float], str]


PANELS = (
    Panel("Received and stored, events a second", results.received, "{:,.0f}".format),
    Panel("99 % are answered within, ms", results.p99, "{:,.0f}".format),
)


def draw(found: Results) -> str | None:
    """Return the picture, or None where nobody ran with so many connections."""
    names = [one.name for one in CONTESTANTS if found.has(one.name, CONNECTIONS)]
    if not names:
        return None
    title = f"{CONNECTIONS} senders at once, one machine"
    parts = [text(GAP, 26, title, size=15, weight=600)]
    note = f"bars are to scale; limit stores nothing; {EARLY} answers before the event is on a disk"
    parts.append(text(GAP, 44, note, FAINT))
    for column, panel in enumerate(PANELS):
        x = GAP + column * (LABEL + BAR + NUMBER)
        parts += _panel(x, panel, found, names)
    width = GAP + len(PANELS) * (LABEL + BAR + NUMBER)
    return page(width, TOP + LINE * len(names) + GAP, title, parts)


def _panel(x: int, panel: Panel, found: Results, names: Sequence[str]) -> list[str]:
    values = {name: found.median(panel.figure, name, CONNECTIONS) for name in names}
    largest = max((value for value in values.values() if value), default=1.0)
    axis = x + LABEL
    parts = [text(x, TOP - 14, panel.title, weight=600)]
    for position, (name, value) in enumerate(values.items()):
        y = TOP + LINE * position
        weight = 600 if _is_ours(name) else 400
        label = f"{name} {EARLY}" if _answers_early(name) else name
        parts.append(text(axis - 8, y + 10, label, weight=weight, anchor="end"))
        if value is None or found.failures(name, CONNECTIONS):
            parts.append(text(axis + 6, y + 10, "failed its audit", FAINT))
            continue
        length = BAR * value / largest
        parts.append(bar(axis, y, length, OWN if _is_ours(name) else OTHER))
        parts.append(text(axis + length + 6, y + 10, panel.show(value), INK, weight=weight))
    parts.append(upright(axis, TOP - 4, TOP + LINE * len(names) - 2))
    return parts


def _is_ours(name: str) -> bool:
    return any(one.name == name and one.is_ours for one in CONTESTANTS)


def _answers_early(name: str) -> bool:
    return any(one.name == name and one.ledger and not one.is_synced for one in CONTESTANTS)
