"""Shows that the harness catches what it claims to catch, by running receivers with bugs.

A benchmark that would not notice a receiver which forgets events measures forgetting.
"""

from dataclasses import dataclass

from benchmarks import load, scratch
from benchmarks.contestants import Contestant, SQLiteLedger
from benchmarks.deck import Deck
from benchmarks.load import Load
from benchmarks.window import Drive, Plan, Window, run_window

SECONDS = 1
CONNECTIONS = 8
STALL_SECONDS = 1
SHORT_DECK = 50


@dataclass(frozen=True, kw_only=True)
class Check:
    """A bug, and the word in the report that proves it was noticed."""

    about: str
    bug: str
    expected: str
    drive: Drive = load.drive


def drive_short_deck(deck: Deck, **options: int) -> Load:
    """Drive with fewer bodies than the window needs."""
    return load.drive(_cut(deck), **options)


def drive_short_deck_without_wrk(deck: Deck, **options: int) -> Load:
    """Do the same with our own generator."""
    return load.drive_without_wrk(_cut(deck), **options)


def _cut(deck: Deck) -> Deck:
    with deck.path.open("r+b") as file:
        file.truncate(SHORT_DECK * deck.record_bytes)
    return Deck(deck.path, SHORT_DECK, deck.record_bytes)


CHECKS = (
    Check(about="no bug", bug="none", expected=""),
    Check(about="no bug, without wrk", bug="none", expected="", drive=load.drive_without_wrk),
    Check(about="acks without storing", bug="forgets", expected="lost"),
    Check(about="leaves events unhandled", bug="idles", expected="not handled"),
    Check(about="runs effects twice", bug="repeats", expected="handlers wrote"),
    Check(about="verifies nothing", bug="trusts", expected="accepted a forged event"),
    Check(about="answers 500", bug="errs", expected="refused"),
    Check(about="dies", bug="dies", expected="died"),
    Check(about="bodies run out", bug="none", expected="ran out", drive=drive_short_deck),
    Check(
        about="bodies run out, without wrk",
        bug="none",
        expected="ran out",
        drive=drive_short_deck_without_wrk,
    ),
)


def main() -> int:
    """Run all checks and say how each went; return the exit status."""
    plan = Plan(seconds=SECONDS, scratch=scratch.folder(), stall_seconds=STALL_SECONDS)
    outcomes = [_run(check, plan) for check in CHECKS]
    return 0 if all(outcomes) else 1


def _run(check: Check, plan: Plan) -> bool:
    window = run_window(_planted(check.bug), plan, connections=CONNECTIONS, drive=check.drive)
    found = "; ".join(_findings(window))
    is_caught = check.expected in found if check.expected else not found
    print(f"{'ok' if is_caught else 'NOT OK'}: {check.about}: {found or 'nothing found'}")
    return is_caught


def _findings(window: Window) -> list[str]:
    refused = window.figures.load.refused if window.figures else 0
    return [*window.failures, *([f"refused {refused:,}"] if refused else [])]


def _planted(bug: str) -> Contestant:
    return Contestant(
        name=f"planted-{bug}",
        about="a receiver with a planted bug",
        app="benchmarks.apps.planted:app",
        environment={"PLANTED_BUG": bug},
        ledger=SQLiteLedger(
            stored="SELECT count(*) FROM events",
            handled="SELECT count(*) FROM events WHERE handled",
            effects="SELECT count(*) FROM effects",
        ),
    )
