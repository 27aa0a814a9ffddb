"""``demo``: what a newcomer runs first."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from click.testing import Result

from animica_hooks.cli import demo

Command = Callable[..., Result]


def test_the_demo_shows_the_main_job(tmp_path: Path) -> None:
    """It runs by itself, the database holds exactly what was sent, and it leaves nothing behind."""
    done = subprocess.run(
        [sys.executable, "-m", "animica_hooks", "demo", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    shown = json.loads(done.stdout)
    assert (True, 1033) == (shown["ok"], shown["deliveries"])
    found = {check["what"]: check["found"] for check in shown["checks"]}
    expected = {
        "event deliveries answered 204": 950,
        "duplicate deliveries answered 204": 50,
        "unusable deliveries answered 204": 3,
        "tampered deliveries answered 400": 10,
        "stale deliveries answered 400": 10,
        "malformed deliveries answered 400": 10,
        "events stored, each once": 950,
        "stored of what was refused": 0,
        "duplicates counted": 50,
        "held in the quarantine": 3,
        "payments booked, once each": 640,
        "receipts mailed at the third attempt": 80,
        "dead letters": 30,
        "dead letters replayed, and handled": 30,
        "events without a handler, kept": 200,
        "jobs left to do": 0,
    }
    assert expected == {what: found[what] for what in expected}
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["people", "programs"])
def test_a_mismatch_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """Where the database does not hold what was sent, the demo exits with 1 and says where."""
    answers = demo.Answers(Counter({("event", 204): 2}), 1.0, 0.1, 0.2)
    checks = [demo.Check("events stored", 2, 2), demo.Check("dead letters", 3, 4)]
    monkeypatch.setattr(demo, "_show", lambda directory, say: (answers, checks))
    result = command("demo", *options)
    assert 1 == result.exit_code
    assert result.stderr.endswith("dead letters: 4 instead of 3\n")
    assert 1 == result.stderr.count("\n")


def test_the_demo_sends_the_same_each_time() -> None:
    """Two runs can be compared: only ids' signatures and times differ."""
    first, second = (demo.make_deliveries(Random(7)) for _ in range(2))
    kinds = Counter(delivery.kind for delivery in first)
    assert (1000, 0.05) == (
        kinds["event"] + kinds["duplicate"],
        kinds["duplicate"] / (kinds["event"] + kinds["duplicate"]),
    )
    ids = [json.loads(delivery.body)["id"] for delivery in first if delivery.kind == "event"]
    again = [json.loads(delivery.body)["id"] for delivery in second if delivery.kind == "event"]
    assert ids == again
    assert 950 == len(set(ids))
