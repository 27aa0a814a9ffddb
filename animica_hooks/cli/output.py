"""What commands print: tables for people, JSON for programs.

Rule 1: what came from outside (types, ids, reasons, messages) is printed with everything escaped
        that a terminal could obey, and never read as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeAlias

import click

OnProgress: TypeAlias = Callable[[int, int], None]  # is told how many of how many are done

_PIPED_WIDTH = 500  # tables in a file or a pipe are not folded
_NOTHING = "-"
_WHOLE = frozenset({"event", "id", "job", "state"})  # columns that are copied: folded last


def plain(value: object) -> str:
    """Return text on one line, with nothing in it that a terminal obeys."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_lines(text: str) -> list[str]:
    """Return the lines of a text, each as ``plain``."""
    return [plain(line.replace("\t", "    ")) for line in text.split("\n")]


def as_json(value: Any) -> str:
    """Encode a view, or a dict of them, as JSON on one line, in ASCII."""
    import msgspec

    return json.dumps(msgspec.to_builtins(value))


def show(title: str, fields: Iterable[tuple[str, object]]) -> None:
    """Print one thing: a title, and a line for each field that has a value."""
    click.echo(plain(title))
    for name, value in fields:
        if value is not None and value != "":
            click.echo(f"  {name:<14} {cell(value)}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, without the columns that have nothing in any row."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    cells = [[cell(value) for value in row] for row in rows]
    shown = [n for n in range(len(columns)) if any(row[n] != _NOTHING for row in cells)]
    for n in shown:
        made.add_column(Text(columns[n]), overflow="fold", no_wrap=columns[n] in _WHOLE)
    for row in cells:
        made.add_row(*(Text(row[n]) for n in shown))
    console().print(made)


def console(*, stderr: bool = False) -> Any:
    """Return a console that takes text as it is."""
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout
    return Console(
        file=file,
        width=None if file.isatty() else _PIPED_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


def cell(value: object) -> str:
    """Return a value as people read it."""
    match value:
        case None:
            return _NOTHING
        case datetime():
            return value.astimezone().isoformat(" ", "seconds")
        case dict():
            return (
                ", ".join(f"{plain(count)} {plain(name)}" for name, count in value.items())
                or _NOTHING
            )
        case float():
            return f"{value:.3f}"
        case _:
            return plain(value)


@contextmanager
def progress(what: str) -> Iterator[OnProgress]:
    """Show a bar with the rate and the time left, to people."""
    if not sys.stderr.isatty():
        yield lambda done, planned: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} a second,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console(stderr=True),
    ) as bar:
        task = bar.add_task(what, total=None, rate="-")

        def on_progress(done: int, planned: int) -> None:
            speed = bar.tasks[0].speed
            rate = "-" if speed is None else f"{speed:,.0f}"
            bar.update(task, completed=done, total=planned, rate=rate)

        yield on_progress


def times(count: int, noun: str) -> str:
    """Count a noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
