"""``handlers`` and ``jobs unpark``, on a shop that has had a day."""

import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import create_engine, text

Command = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("stocked")


def lines(result: Result) -> list[Any]:
    assert 0 == result.exit_code, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def of(command: Command, name: str) -> Any:
    [found] = [h for h in lines(command("handlers", "list", "--json")) if h["name"] == name]
    return found


def test_handlers_are_listed(command: Command) -> None:
    """With their patterns, when they were seen, and their jobs; for people as a table."""
    assert ["book", "fail", "mail"] == [
        h["name"] for h in lines(command("handlers", "list", "--json"))
    ]
    book = of(command, "book")
    assert (["order.paid"], "animica", None, 0, 0, 0) == (
        book["patterns"], book["endpoint"], book["paused_at"], book["waiting"], book["leased"],
        book["parked"],
    )  # fmt: skip
    assert "order.paid" in command("handlers", "list").stdout


def test_a_handler_is_paused_and_resumed(command: Command) -> None:
    """It shows since when; one that is not known exits with 1."""
    assert [{"name": "book", "paused": True}] == lines(
        command("handlers", "pause", "book", "--json")
    )
    assert of(command, "book")["paused_at"] is not None
    assert "handler book is resumed\n" == command("handlers", "resume", "book").stdout
    assert of(command, "book")["paused_at"] is None
    for what in ("pause", "resume", "remove --yes"):
        result = command("handlers", *what.split(), "unheard.of")
        assert (1, True) == (result.exit_code, "knows no handler unheard.of" in result.stderr)


def age(database: Path, handler: str) -> None:
    """Let a minute go by since a process had a handler."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE hooks_handlers SET seen_at = seen_at - 60000000 WHERE name = ?", (handler,)
        )


def test_a_handler_that_a_process_has_is_not_removed(command: Command, stocked: Path) -> None:
    """Nor one that was seen within a minute: its jobs stay, and it is said what to do."""
    with closing(sqlite3.connect(stocked)) as connection, connection:
        connection.execute("UPDATE hooks_handlers SET seen_at = ?", (time.time_ns() // 1000,))
    assert 0 == command("jobs", "retry", "3").exit_code

    for answer in ("--yes", "--json"):  # it is said before it is asked
        result = command("handlers", "remove", "fail", answer)
        assert 1 == result.exit_code
        assert "a process that runs has the handler fail" in result.stderr
        assert re.search(r"try again after \d+ s; .*'animica-hooks handlers pause'", result.stderr)

    assert 1 == of(command, "fail")["waiting"]
    age(stocked, "fail")
    assert 0 == command("handlers", "remove", "fail", "--yes").exit_code


def test_a_handler_is_removed(command: Command, stocked: Path) -> None:
    """After asking: its waiting jobs are cancelled, and it is not listed any more."""
    age(stocked, "fail")
    assert 0 == command("jobs", "retry", "3").exit_code
    assert 1 == of(command, "fail")["waiting"]
    assert 2 == command("handlers", "remove", "fail").exit_code  # nobody to ask
    [removed] = lines(command("handlers", "remove", "fail", "--yes", "--json"))
    assert {"name": "fail", "removed": True, "cancelled": 1} == removed
    assert "fail" not in command("handlers", "list").stdout
    [job] = lines(command("jobs", "list", "--state", "cancelled", "--json"))
    assert ("fail", "its handler was removed") == (job["handler"], job["reason"])


def test_jobs_are_unparked(command: Command, stocked: Path) -> None:
    """Their keys are shown; those that are parked go on."""
    engine = create_engine(f"sqlite:///{stocked}")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE hooks_jobs SET state = 'parked', ordering_key = 'ada' WHERE id = 3")
        )
    engine.dispose()
    [job] = lines(command("jobs", "list", "--state", "parked", "--json"))
    assert (3, "ada") == (job["id"], job["key"])
    assert "ada" in command("jobs", "list").stdout
    assert "ada" in command("jobs", "show", "3").stdout

    assert "unparked 0 jobs\n" == command("jobs", "unpark", "--key", "bob").stdout
    typo = command("jobs", "unpark", "--handler", "fial")
    assert (1, True) == (typo.exit_code, "knows no handler fial" in typo.stderr)
    assert [{"unparked": 1}] == lines(
        command("jobs", "unpark", "--handler", "fail", "--key", "ada", "3", "--json")
    )
    [job] = lines(command("jobs", "list", "--state", "available", "--json"))
    assert job["due_at"] is not None
