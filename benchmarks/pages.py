"""Writes a run down: a page for people, a picture, and everything as JSON."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

FOLDER = Path(__file__).with_name("results")
ABSENT = "-"


def write(name: str, page: str, picture: str | None, run: object) -> None:
    """Write `name` with the endings `.md`, `.svg` and `.json`."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.md").write_text(page)
    if picture:
        (FOLDER / f"{name}.svg").write_text(picture)
    encoded = msgspec.json.format(msgspec.json.encode(run), indent=1)
    (FOLDER / f"{name}.json").write_bytes(encoded + b"\n")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, padded so that the page reads as well in a terminal."""
    cells = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in cells
    ]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([lines[0], rule, *lines[1:]])


def number(value: float | None, digits: int) -> str:
    """Return a figure, or what stands for none."""
    return ABSENT if value is None else f"{value:,.{digits}f}"
