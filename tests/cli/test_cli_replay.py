"""``replay``: the plan first, then the question, then the jobs."""

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

Command = Callable[..., Result]


def jobs_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        (count,) = database.execute("SELECT count(*) FROM hooks_jobs").fetchone()
        return int(count)


def test_a_replay_makes_new_jobs(command: Command, stocked: Path) -> None:
    """The plan is shown, and what was made of it; the new job names the one it repeats."""
    result = command("replay", "--state", "dead", "--yes")
    assert 0 == result.exit_code, result.stderr
    assert "1 job to replay" in result.stdout
    assert "replay 1 made 1 job" in result.stdout
    made = json.loads(command("jobs", "list", "--json", "--state", "available").stdout)
    assert (3, 1, "evt_3") == (made["replayed_from"], made["replay_id"], made["event_id"])


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ("--all", 3),
        ("--id evt_1 --id evt_2", 2),
        ("--type order.paid --type order.lost", 3),
        ("--handler book --limit 1", 1),
        ("--state succeeded", 2),
        ("--since 1h", 3),
        ("--until 1h", 0),
        ("--all --app shop:hooks", 3),
    ],
)
def test_the_plan_counts_without_doing(
    command: Command, stocked: Path, filters: str, count: int
) -> None:
    """--plan says how many jobs each filter leaves, and makes none."""
    result = command("replay", *filters.split(), "--plan", "--json")
    assert count == json.loads(result.stdout)["count"]
    assert 3 == jobs_in(stocked)


def test_json_is_one_document(command: Command, stocked: Path) -> None:
    """With --json --yes nothing but the result is printed, also where there is nothing to do."""
    done = json.loads(command("replay", "--all", "--yes", "--json", "--rate", "1000").stdout)
    assert (3, 3, 0) == (done["planned"], done["created"], done["skipped"])
    nothing = json.loads(command("replay", "--all", "--yes", "--json").stdout)
    assert (0, 3) == (nothing["count"], nothing["skipped"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "say what to replay"),
        ("--yes", "say what to replay"),
        ("--limit 5 --yes", "say what to replay"),
        ("--all", "say --yes"),
        ("--all --dry-run", "--app"),
        ("--all --force --yes", "--dry-run"),
        ("--handler nobody --yes", "nobody"),
        ("--state lost --yes", "lost"),
        ("--type a*b --yes", "a*b"),
        ("--all --rate 0 --yes", "--rate"),
    ],
)
def test_wrong_use_replays_nothing(
    command: Command, stocked: Path, arguments: str, said: str
) -> None:
    """No filter, nobody to ask, what does not exist: exit code 2, and no job is made."""
    result = command("replay", *arguments.split())
    assert 2 == result.exit_code
    assert said in result.stderr
    assert 3 == jobs_in(stocked)


@pytest.mark.parametrize("how", ["--yes", "--plan", "--plan --json", "--dry-run --app shop:hooks"])
def test_an_event_that_is_not_there_is_told(command: Command, stocked: Path, how: str) -> None:
    """A mistyped id replays nothing, not the others either: it exits with 1, and names it."""
    result = command("replay", "--id", "evt_1", "--id", "nope", "--id", "evt_x", *how.split())
    assert (1, "") == (result.exit_code, result.stdout)
    assert "error: there is no event 'nope', 'evt_x'.\n" == result.stderr
    assert 3 == jobs_in(stocked)


def test_keep_keys_keeps_what_the_keys_are_made_of(command: Command, stocked: Path) -> None:
    """A replay has keys of its own, unless it is told to keep those of the jobs it repeats."""
    command("replay", "--id", "evt_1", "--yes")
    command("replay", "--id", "evt_2", "--yes", "--keep-keys")
    with closing(sqlite3.connect(stocked)) as database:
        keyed = database.execute(
            "SELECT replay_id, keyed_by FROM hooks_jobs WHERE replay_id IS NOT NULL ORDER BY id"
        ).fetchall()
    assert [(1, 1), (2, None)] == keyed


def test_a_dry_run_shows_writes_and_rolls_back(command: Command, stocked: Path) -> None:
    """Handlers run, what they would write is listed, and nothing of it stays."""
    result = command("replay", "--type", "order.paid", "--dry-run", "--app", "shop:hooks", "--json")
    assert 0 == result.exit_code, result.stderr
    runs = json.loads(result.stdout.splitlines()[-1])["runs"]
    assert [("evt_1", [["INSERT booked", 1]]), ("evt_2", [["INSERT booked", 1]])] == [
        (run["event_id"], run["writes"]) for run in runs
    ]
    with closing(sqlite3.connect(stocked)) as database:
        assert [("evt_1",), ("evt_2",)] == database.execute("SELECT id FROM booked").fetchall()
    assert 3 == jobs_in(stocked)


def test_a_dry_run_that_raises_exits_with_1(command: Command, stocked: Path) -> None:
    """What a handler raised is shown, escaped."""
    result = command("replay", "--state", "dead", "--dry-run", "--app", "shop:hooks")
    assert 1 == result.exit_code
    assert "ValueError: \\x1b[31m[red]lost" in result.stdout


def at_a_terminal(answer: bytes) -> tuple[int, str]:
    """Run a replay at a terminal, answer its question, and return the code and what was shown."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "animica_hooks", "replay", "--all"],
        stdin=there, stdout=there, stderr=there, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(there)
    shown = b""
    with os.fdopen(here, "rb", buffering=0) as terminal:
        while True:
            try:
                shown += (piece := terminal.read(65536))
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            if b"[y/N]:" in shown and answer:
                os.write(here, answer)
                answer = b""
    return process.wait(), shown.decode()


def test_people_are_asked_and_shown_the_progress(stocked: Path) -> None:
    """At a terminal y replays, with a bar that has a rate and the time left."""
    code, shown = at_a_terminal(b"y\n")
    assert 0 == code, shown
    assert "Replay 3 jobs? [y/N]:" in shown
    assert "3/3" in shown
    assert re.search(r"[\d,-]+ a second", shown)
    assert "left" in shown
    assert 6 == jobs_in(stocked)


def test_no_is_no(stocked: Path) -> None:
    """Any other answer makes no job, and exits with 1."""
    code, shown = at_a_terminal(b"n\n")
    assert 1 == code, shown
    assert 3 == jobs_in(stocked)
