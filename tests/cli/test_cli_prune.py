"""``prune`` and ``events erase``: what they count, ask and delete."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Command = Callable[..., Result]

ALL_BODIES = ("prune", "--bodies", "0s", "--dead", "0s", "--json")
NOTHING = {"bodies": 0, "events": 0, "quarantined": 0, "replays": 0}

pytestmark = pytest.mark.usefixtures("stocked")


def aged(stocked: Path, days: int) -> None:
    """Make all that is stored older."""
    micros = days * 86_400_000_000
    with closing(sqlite3.connect(stocked)) as database, database:
        database.execute("UPDATE hooks_events SET received_at = received_at - ?", (micros,))
        database.execute("UPDATE hooks_jobs SET finished_at = finished_at - ?", (micros,))
        database.execute("UPDATE hooks_quarantine SET received_at = received_at - ?", (micros,))


def result_of(result: Result) -> Any:
    assert 0 == result.exit_code, result.stderr
    return json.loads(result.stdout)


def test_a_dry_run_only_counts(command: Command) -> None:
    """It says what pruning then does."""
    planned = result_of(command(*ALL_BODIES, "--dry-run"))
    assert {**NOTHING, "bodies": 4} == planned == result_of(command(*ALL_BODIES, "--yes"))
    assert NOTHING == result_of(command(*ALL_BODIES, "--yes"))


def test_the_defaults_prune_nothing_young(command: Command) -> None:
    """And say so."""
    result = command("prune", "--yes")
    assert (0, True) == (result.exit_code, result.stdout.startswith("to prune: 0 payloads, 0 ev"))


def test_the_defaults_prune_what_is_old(command: Command, stocked: Path) -> None:
    """All but dead letters and the newest of each, after half a year."""
    aged(stocked, 180)
    result = command("prune", "--yes")
    assert 0 == result.exit_code, result.stderr
    assert result.stdout.startswith("to prune: 1 payload, 2 events, 1 in the quarantine")
    assert "dead           kept" in result.stdout
    assert "\npruned: 1 payload, 2 events, 1 in the quarantine" in result.stdout


def test_nobody_is_there_to_ask(command: Command) -> None:
    """Without --yes nothing is deleted where there is no terminal."""
    result = command("prune", "--bodies", "0s")
    assert (2, True) == (result.exit_code, "say --yes" in result.stderr)
    assert 3 == result_of(command("prune", "--bodies", "0s", "--dry-run", "--json"))["bodies"]


def test_ages_are_those_of_the_app(command: Command, here: Path) -> None:
    """Those given count before them."""
    shop = (here / "shop.py").read_text().replace("import Event", "import Retention, Event")
    (here / "shop.py").write_text(
        shop.replace("routers=[]", "routers=[], retention=Retention(bodies=0)")
    )
    arguments = ("prune", "--app", "shop:hooks", "--dry-run", "--json")
    assert 3 == result_of(command(*arguments))["bodies"]
    assert 4 == result_of(command(*arguments, "--dead", "0s"))["bodies"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--events 2d", "three days"),
        ("--bodies 100d", "must be bodies"),
        ("--bodies soon", "30d or 12w"),
        ("--bodies d", "30d or 12w"),
    ],
)
def test_wrong_ages_are_wrong_use(command: Command, arguments: str, problem: str) -> None:
    """Those that would break dedup, too."""
    result = command("prune", *arguments.split())
    assert (2, True) == (result.exit_code, problem in result.stderr)


def test_an_event_without_payload_is_shown_as_such(command: Command) -> None:
    """To people and programs; and its jobs are neither retried nor replayed."""
    command(*ALL_BODIES, "--yes")
    assert "pruned or erased" in command("events", "show", "evt_1").stdout
    shown = result_of(command("events", "show", "evt_1", "--json"))
    assert (None, False) == (shown["payload"], shown["has_body"])
    raw = command("events", "show", "evt_1", "--raw")
    assert (1, True) == (raw.exit_code, "is gone" in raw.stderr)
    retried = command("jobs", "retry", "3")
    assert (1, True) == (retried.exit_code, "pruned or erased" in retried.stderr)
    assert "payload gone   3" in command("replay", "--all", "--plan").stdout
    dry = command("replay", "--all", "--dry-run", "--app", "shop:hooks", "--json")
    assert 0 == result_of(dry)["count"]


def test_erasing(command: Command) -> None:
    """It asks, says what it cancelled, and knows no event that is not there."""
    assert 2 == command("events", "erase", "evt_3").exit_code
    erased = command("events", "erase", "evt_3", "--yes")
    assert "the payload of evt_3 is erased, and 1 job cancelled\n" == erased.stdout
    again = result_of(command("events", "erase", "evt_3", "--yes", "--json"))
    assert {"events": 1, "cancelled": 0} == again
    job = result_of(command("jobs", "show", "3", "--json"))
    assert ("cancelled", "erased", []) == (job["state"], job["reason"], job["failures"])
    missing = command("events", "erase", "evt_9", "--yes")
    assert (1, "error: there is no event 'evt_9'.\n") == (missing.exit_code, missing.stderr)
