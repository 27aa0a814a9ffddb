"""Shows that the harness catches what it claims to catch, by running receivers with bugs.

A benchmark that would not notice a receiver which forgets events measures forgetting. One part
plants bugs in a receiver made for that. The other takes deliveries, or the worker, from those that
are compared: that shows for each that what is read from its database is what happened.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks import load, scratch
from benchmarks.contestants import CONTESTANTS, Contestant, plain, serve, with_handlers
from benchmarks.deck import Deck
from benchmarks.ledgers import Queries, SQLiteLedger
from benchmarks.load import Load
from benchmarks.window import Drive, Plan, Window, run_window

SECONDS = 1
CONNECTIONS = 8
STALL_SECONDS = 1
# Workers take as long to start.
PEERS_STALL_SECONDS = 8
SHORT_DECK = 50


@dataclass(frozen=True, kw_only=True)
class Check:
    """A contestant with a bug, and the word in the report that proves it was noticed."""

    about: str
    contestant: Contestant
    expected: str
    drive: Drive = load.drive
    seconds: int = SECONDS
    stall_seconds: int = STALL_SECONDS


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


def _planted(bug: str, every: int = 10) -> Contestant:
    return Contestant(
        name=f"planted-{bug}",
        about="a receiver with a planted bug",
        acked="whatever",
        server=serve("benchmarks.apps.planted:app"),
        environment={"PLANTED_BUG": bug, "PLANTED_EVERY": str(every)},
        ledger=SQLiteLedger(
            queries=Queries(
                stored="SELECT count(*) FROM events",
                handled="SELECT count(*) FROM events WHERE handled",
                effects="SELECT count(*) FROM effects",
            )
        ),
    )


_SQLITE = next(one for one in CONTESTANTS if one.name == "sqlite")

CHECKS = (
    Check(about="no bug", contestant=_planted("none"), expected=""),
    Check(
        about="no bug, without wrk",
        contestant=_planted("none"),
        expected="",
        drive=load.drive_without_wrk,
    ),
    Check(about="forgets 1 event in 10", contestant=_planted("forgets"), expected="lost"),
    Check(
        about="forgets 1 in 1,000", contestant=_planted("forgets", 1000), expected="lost", seconds=4
    ),
    Check(
        about="forgets 1 in 1,000, without wrk",
        contestant=_planted("forgets", 1000),
        expected="lost",
        seconds=4,
        drive=load.drive_without_wrk,
    ),
    Check(about="handles 9 in 10", contestant=_planted("idles"), expected="not handled"),
    Check(
        about="1 handler in 5 is missing",
        contestant=replace(
            with_handlers(_SQLITE, "planted-handlers", 4),
            ledger=with_handlers(_SQLITE, "planted-handlers", 5).ledger,
        ),
        expected="not handled",
    ),
    Check(about="handles none", contestant=_planted("idles", 1), expected="not handled"),
    Check(about="runs effects twice", contestant=_planted("repeats"), expected="handlers wrote"),
    Check(
        about="verifies nothing",
        contestant=_planted("trusts"),
        expected="accepted a forged event",
    ),
    Check(about="answers 500", contestant=_planted("errs"), expected="refused"),
    Check(about="dies", contestant=_planted("dies"), expected="died"),
    Check(
        about="bodies run out",
        contestant=_planted("none"),
        expected="ran out",
        drive=drive_short_deck,
    ),
    Check(
        about="bodies run out, without wrk",
        contestant=_planted("none"),
        expected="ran out",
        drive=drive_short_deck_without_wrk,
    ),
)


def _peer_checks() -> Iterator[Check]:
    for one in CONTESTANTS:
        if one.trusted or one.fault():
            continue
        if one.server == plain(app := one.server[1]):
            yield Check(
                about=f"{one.name}, 1 delivery in 20 lost",
                contestant=replace(
                    one,
                    server=plain("benchmarks.apps.careless:app"),
                    environment={"CARELESS_APP": app},
                ),
                expected="lost",
                stall_seconds=PEERS_STALL_SECONDS,
            )
        if one.beside:
            yield Check(
                about=f"{one.name}, without its worker",
                contestant=replace(one, beside=one.beside[:-1]),
                expected="not handled",
            )


def main() -> int:
    """Run all checks and say how each went; return the exit status."""
    outcomes = [_run(check) for check in (*CHECKS, *_peer_checks())]
    return 0 if all(outcomes) else 1


def _run(check: Check) -> bool:
    plan = Plan(seconds=check.seconds, scratch=scratch.folder(), stall_seconds=check.stall_seconds)
    window = run_window(check.contestant, plan, connections=CONNECTIONS, drive=check.drive)
    found = "; ".join(_findings(window))
    is_caught = check.expected in found if check.expected else not found
    print(f"{'ok' if is_caught else 'NOT OK'}: {check.about}: {found or 'nothing found'}")
    sys.stdout.flush()
    return is_caught


def _findings(window: Window) -> list[str]:
    refused = window.figures.load.refused if window.figures else 0
    return [*window.failures, *([f"refused {refused:,}"] if refused else [])]
