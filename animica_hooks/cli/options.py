"""Options that several commands have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_AGO = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(text: str) -> datetime:
    """Read RFC 3339 (local time where it has no offset), or how long ago: ``90s 30m 2h 7d 1w``."""
    try:
        if text[-1:] in _AGO and text[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * _AGO[text[-1]])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a time such as 2030-01-31T12:00:00+00:00 nor how long ago, such "
            "as 90s, 30m, 2h or 7d."
        ) from None


def duration(text: str) -> float:
    """Read a duration, in seconds: ``90s 30m 2h 30d 12w``."""
    try:
        return float(int(text[:-1]) * _AGO[text[-1:]])
    except (ValueError, KeyError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no duration such as 90s, 30m, 2h, 30d or 12w."
        ) from None


def since_option(command: F) -> F:
    """``--since``: the earliest receipt."""
    return click.option(
        "--since", type=moment, metavar="TIME", help="Received then or later; 2h is two hours ago."
    )(command)


def until_option(command: F) -> F:
    """``--until``: a time that every receipt is before."""
    return click.option("--until", type=moment, metavar="TIME", help="Received earlier.")(command)


def database_option(command: F) -> F:
    """``--database-url``."""
    return click.option(
        "--database-url", metavar="URL", help="Where the inbox is, for example sqlite:///hooks.db."
    )(command)


def json_option(command: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def limit_option(command: F) -> F:
    """``--limit``, for lists."""
    return click.option(
        "--limit",
        type=click.IntRange(1),
        default=50,
        show_default=True,
        help="Show at most so many.",
    )(command)


def yes_option(command: F) -> F:
    """``--yes``, for what ``confirm`` asks."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that can not be undone.

    Raises:
        click.UsageError: there is nobody to ask.
        click.Abort: no was the answer.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask here: say --yes.")
    click.confirm(question, abort=True, err=True)
