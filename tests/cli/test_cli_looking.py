"""``events``, ``jobs``, ``dead``, ``quarantine`` and ``stats``, on a shop that has had a day."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import create_engine, text

from animica_hooks.cli import output

Command = Callable[..., Result]


def lines(result: Result) -> list[Any]:
    """Read one JSON object from each line."""
    assert 0 == result.exit_code, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def alter(database: Path, statement: str) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def ids(result: Result) -> list[str]:
    return [line["id"] for line in lines(result)]


pytestmark = pytest.mark.usefixtures("stocked")


def test_events_are_listed_newest_first(command: Command) -> None:
    """Each with how often it was delivered, and its jobs by state."""
    found = lines(command("events", "list", "--json"))
    assert ["evt_4", "evt_3", "evt_2", "evt_1"] == [event["id"] for event in found]
    assert [1, 1, 2, 1] == [event["deliveries"] for event in found]
    assert [{}, {"dead": 1}, {"succeeded": 1}, {"succeeded": 1}] == [e["jobs"] for e in found]


def test_events_are_filtered(command: Command) -> None:
    """By pattern, time and number."""
    assert ["evt_2", "evt_1"] == ids(command("events", "list", "--json", "--type", "order.paid"))
    assert ["evt_4"] == ids(command("events", "list", "--json", "--limit", "1"))
    assert [] == ids(command("events", "list", "--json", "--until", "1h"))
    assert 4 == len(ids(command("events", "list", "--json", "--since", "1h", "--type", "order.*")))
    tomorrow = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 86400, UTC).isoformat()
    assert [] == ids(command("events", "list", "--json", "--since", tomorrow))


@pytest.mark.parametrize("time", ["yesterday", "", "h", "-1h", "2030-13-01", "9" * 400 + "w"])
def test_a_wrong_time_is_wrong_use(command: Command, time: str) -> None:
    """It exits with 2 and shows how times are written."""
    result = command("events", "list", "--since", time)
    assert 2 == result.exit_code
    assert "90s, 30m, 2h or 7d" in result.stderr


def test_a_wrong_pattern_is_wrong_use(command: Command) -> None:
    """Patterns are those of @on."""
    for group in ("events", "jobs", "dead"):
        result = command(group, "list", "--type", "a*b")
        assert (2, 1) == (result.exit_code, result.stderr.count("\n"))


@pytest.mark.parametrize(
    "arguments",
    [
        "events list",
        "events show evt_3",
        "events show evt_4",
        "events show evt_4 --json",
        "jobs list",
        "jobs show 3",
        "dead list",
        "quarantine list",
        "quarantine show 1",
        "quarantine show 2",
        "replay --all --plan",
    ],
)
def test_nothing_that_was_received_reaches_the_terminal_raw(
    command: Command, arguments: str
) -> None:
    """Types, payloads, reasons and tracebacks are escaped, and markup is not obeyed."""
    result = command(*arguments.split())
    assert 0 == result.exit_code, result.stderr
    assert all(line.isprintable() for line in result.output.split("\n"))


def test_markup_is_text(command: Command) -> None:
    """What looks like markup is shown as it came."""
    assert "order.\\x1b[31m[red]seen" in command("events", "list").stdout
    assert "[red]lost" in command("jobs", "show", "3").stdout


def test_an_event_is_shown_with_its_jobs(command: Command) -> None:
    """Payload, headers and jobs, for people and for programs."""
    shown = command("events", "show", "evt_1").stdout
    assert '"amount": 1' in shown
    assert "x-animica-signature: t=" in shown
    assert "book" in shown
    event = json.loads(command("events", "show", "evt_1", "--json").stdout)
    assert {"amount": 1} == event["payload"]["data"]
    assert [("book", "succeeded")] == [(job["handler"], job["state"]) for job in event["jobs"]]


def test_the_raw_body_is_what_was_signed(command: Command) -> None:
    """--raw writes the bytes, and nothing else."""
    body = command("events", "show", "evt_4", "--raw").stdout_bytes
    assert {"note": "\x9b1m\u202e"} == json.loads(body)["data"]
    assert b"no JSON\x1b[31m" == command("quarantine", "show", "2", "--raw").stdout_bytes


def test_a_narrow_table_keeps_ids_whole_and_leaves_out_what_is_empty(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id can be copied from a usual terminal, and no column has only dashes."""
    monkeypatch.setattr(output, "_PIPED_WIDTH", 60)
    output.table(
        ["received", "id", "type", "key"], [["2030-01-31 12:00:00", "x" * 40, "a.b", None]]
    )
    shown = capsys.readouterr().out
    assert "x" * 40 in shown
    assert "key" not in shown


def test_jobs_are_filtered(command: Command) -> None:
    """By state, handler, event and type."""
    assert [3, 2, 1] == ids(command("jobs", "list", "--json"))
    assert [3] == ids(command("jobs", "list", "--json", "--state", "dead"))
    both = command("jobs", "list", "--json", "--state", "dead", "--state", "succeeded")
    assert [3, 2, 1] == ids(both)
    assert [2, 1] == ids(command("jobs", "list", "--json", "--handler", "book"))
    assert [2] == ids(command("jobs", "list", "--json", "--event", "evt_2"))
    assert [3] == ids(command("jobs", "list", "--json", "--type", "order.lost"))
    assert [3] == ids(command("dead", "list", "--json"))
    assert [] == ids(command("dead", "list", "--json", "--handler", "book"))


def test_a_dead_job_is_shown_with_its_traceback(command: Command) -> None:
    """What its attempts raised, and where."""
    shown = command("jobs", "show", "3").stdout
    assert "job 3 of fail: dead" in shown
    assert "ValueError" in shown
    assert "shop.py" in shown
    job = json.loads(command("jobs", "show", "3", "--json").stdout)
    assert ["ValueError"] == [failure["error"] for failure in job["failures"]]


def test_a_dead_job_is_tried_again(command: Command) -> None:
    """`jobs retry` makes it available; one that has succeeded is not touched, and exits with 1."""
    assert 0 == command("jobs", "retry", "3").exit_code
    assert [3] == ids(command("jobs", "list", "--json", "--state", "available"))
    result = command("jobs", "retry", "1", "3")
    assert (1, "job 3 is tried again\n") == (result.exit_code, result.stdout)
    [said] = result.stderr.splitlines()
    assert said.startswith("error: job 1 has succeeded: 'animica-hooks replay --id evt_1 --handler")
    assert [2, 1] == ids(command("jobs", "list", "--json", "--state", "succeeded"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("state = 'leased'", "job 3 is running: should it fail, it is tried again by itself."),
        ("state = 'parked'", "job 3 is parked behind a dead one of its key: 'animica-hooks jobs"),
        ("state = 'available'", "job 3 waits for those of its key before it: retry the first"),
    ],
)
def test_a_job_that_can_not_be_tried_again_says_what_to_do(
    command: Command, stocked: Path, change: str, says: str
) -> None:
    """The refusal names its state, and what there is to do instead."""
    alter(stocked, f"UPDATE hooks_jobs SET {change}, ordering_key = 'ada' WHERE id = 3")
    result = command("jobs", "retry", "3")
    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert f"error: {says}" in result.stderr


def test_dead_letters_tell_how_many_are_parked_behind_them(command: Command, stocked: Path) -> None:
    """In a column that is there only where some are; jobs before it are not behind it."""
    assert "parked" not in command("dead", "list").stdout
    alter(stocked, "UPDATE hooks_jobs SET handler_id = 9, ordering_key = 'ada'")
    alter(stocked, "UPDATE hooks_jobs SET state = 'parked' WHERE id <> 2")
    alter(stocked, "UPDATE hooks_jobs SET state = 'dead' WHERE id = 2")
    alter(stocked, "UPDATE hooks_handlers SET id = 9 WHERE name = 'book'")

    [dead] = lines(command("dead", "list", "--json"))
    assert (2, 1) == (dead["id"], dead["parked"])
    head, _, row = command("dead", "list").stdout.split("\n")[1:4]
    assert ["parked", "1"] == [line.split()[head.split().index("parked")] for line in (head, row)]
    assert "  parked         1\n" in command("jobs", "show", "2").stdout
    assert 2 == json.loads(command("stats", "--json").stdout)["parked"]


@pytest.mark.parametrize(
    "arguments",
    [
        "events show evt_none",
        "jobs show 99",
        "jobs retry 99",
        "quarantine show 99",
        "quarantine release 99",
        "quarantine discard 99",
        "quarantine discard 1 99",
        "quarantine discard 99 --yes",
        "events erase evt_none",
        "events erase evt_1 --endpoint elsewhere",
        "events erase evt_none --yes",
    ],
)
def test_what_is_not_there_exits_with_1(command: Command, arguments: str) -> None:
    """One line says what there is none of, before anything is asked or done."""
    result = command(*arguments.split())
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.startswith("error: there is no ")


def test_removing_a_handler_that_is_not_there_asks_nothing(command: Command) -> None:
    """A name that was mistyped is told before the question."""
    result = command("handlers", "remove", "boook")
    assert (1, True) == (result.exit_code, "knows no handler boook" in result.stderr)


def test_stats_count_what_waits_and_what_is_dead(command: Command) -> None:
    """For people, and for programs."""
    expected = {"available": 0, "leased": 0, "parked": 0, "dead": 1, "quarantined": 2}
    assert expected == json.loads(command("stats", "--json").stdout)
    assert "  dead           1\n" in command("stats").stdout


def test_the_quarantine_is_listed(command: Command) -> None:
    """Newest first, with the reason."""
    found = lines(command("quarantine", "list", "--json"))
    assert [2, 1] == [held["id"] for held in found]
    assert ["it is not JSON", "it has no id that is a non-empty string"] == [
        held["reason"] for held in found
    ]
    shown = json.loads(command("quarantine", "show", "2", "--json").stdout)
    assert "no JSON\x1b[31m" == shown["body"]
    assert str(len(shown["body"])) == shown["headers"]["content-length"]
    assert "\n  content-length: 12\n" in command("quarantine", "show", "2").stdout


def test_a_quarantined_delivery_is_released_with_an_id(command: Command, stocked: Path) -> None:
    """What its body lacks is given by hand; then it is an event with a job, and gone from there."""
    refused = command("quarantine", "release", "1")
    assert (1, 1) == (refused.exit_code, refused.stderr.count("\n"))
    assert "--id" in refused.stderr
    result = command("quarantine", "release", "1", "--id", "evt_5", "--json")
    assert {"id": 1, "stored": "new"} == json.loads(result.stdout)
    assert [2] == ids(command("quarantine", "list", "--json"))
    assert "evt_5" in ids(command("events", "list", "--json"))
    assert [4] == ids(command("jobs", "list", "--json", "--event", "evt_5"))
    assert "order.paid" in command("events", "show", "evt_5").stdout


def test_discarding_asks(command: Command) -> None:
    """Without --yes and with nobody to ask, nothing is deleted; with it, it is."""
    assert 2 == command("quarantine", "discard", "1").exit_code
    assert [2, 1] == ids(command("quarantine", "list", "--json"))
    assert 0 == command("quarantine", "discard", "1", "--yes").exit_code
    assert [2] == ids(command("quarantine", "list", "--json"))
