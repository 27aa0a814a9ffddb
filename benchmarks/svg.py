"""The little of SVG that pictures of bars and curves need, without a library."""

from collections.abc import Sequence
from html import escape

# A page's own background may be dark: a picture brings its own.
PAPER, INK, FAINT, OTHER, OWN = "#ffffff", "#1f2328", "#59636e", "#b4bcc6", "#1a7f5a"
GRID = "#e4e8ec"


def text(
    x: float,
    y: float,
    content: str,
    colour: str = INK,
    *,
    size: int = 12,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    """Return a line of text."""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )


def bar(x: float, y: float, width: float, colour: str) -> str:
    """Return a bar."""
    return f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="12" fill="{colour}"/>'


def upright(x: float, top: float, bottom: float) -> str:
    """Return an axis."""
    return f'<line x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}" stroke="{FAINT}"/>'


def level(y: float, left: float, right: float, colour: str = GRID) -> str:
    """Return a line across."""
    return f'<line x1="{left:g}" y1="{y:.1f}" x2="{right:g}" y2="{y:.1f}" stroke="{colour}"/>'


def curve(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    """Return a line through all points, each of which is a dot."""
    along = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline points="{along}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
    return [line, *dots]


def page(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """Return the picture; the label is for those who cannot see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="system-ui, sans-serif" role="img" '
        f'aria-label="{escape(label)}">'
    )
    paper = f'<rect width="{width:g}" height="{height:g}" fill="{PAPER}"/>'
    return "\n".join([head, paper, *parts, "</svg>", ""])
