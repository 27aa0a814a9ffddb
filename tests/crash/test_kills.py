"""Killed at random and at every named point: nothing is lost, no transactional effect repeated."""

import asyncio
import signal

import pytest
from crashkit import FULL, HANDLERS, Killing, MakePlace, deliver_until_dead, send, take_account
from databases import on_every_database

from animica_hooks.testing import make_event


@on_every_database
def test_random_kills_lose_and_repeat_nothing(make_place: MakePlace, database_kind: str) -> None:
    """Under SIGKILL at random times each acknowledged event is kept and has its effects once."""
    small = (1_000, 20) if database_kind == "sqlite" else (300, 6)
    events, kills = (10_000, 200) if FULL else small
    place = make_place(CRASH_WORK_S="0.005", CRASH_DISK_S="0.01")
    killing = Killing(place, events=events, kills=kills, life=0.5)

    asyncio.run(killing.run())
    account = killing.account()

    print(account)
    assert {} == account.violations
    assert (events, kills) == (account.acked, account.kills)


# A harness that finds nothing has to be shown to find something.


@on_every_database
@pytest.mark.parametrize(
    ("bug", "disk", "violation"),
    [("acks before commit", "0.1", "lost"), ("marks apart", "0.02", "repeated")],
)
def test_the_harness_finds_planted_bugs(
    make_place: MakePlace, bug: str, disk: str, violation: str
) -> None:
    """An app that acks early is seen to lose events, one that marks later to repeat effects."""
    place = make_place(CRASH_BUG=bug, CRASH_WORK_S="0.005", CRASH_DISK_S=disk)
    killing = Killing(place, events=100, kills=4, life=0.4)

    asyncio.run(killing.run())
    account = killing.account()

    assert violation in account.violations


POINTS = [
    "before insert",
    "after commit before ack",
    "after claim",
    "mid handler",
    "after handler before effect",
    "after effect with mark",
    "after handler before mark",
    "after mark",
]
PASSES = (1, 2, 4) if FULL else (2,)  # of these points, at which to die


@on_every_database
def test_kills_at_every_point_lose_and_repeat_nothing(make_place: MakePlace) -> None:
    """Wherever between receipt and the last mark a process dies, the next one makes it good."""
    place = make_place()
    acked: list[str] = []
    for point in POINTS:
        for at in PASSES:
            dies = place.serve(CRASH_AT=f"{point}@{at}")
            lives = [f"evt_{point.replace(' ', '_')}_{at}_{n}" for n in range(5)]
            acked += lives
            bodies = [make_event("order.paid", id=id) for id in lives]
            asyncio.run(deliver_until_dead(place.port, dies, bodies))
            assert -signal.SIGKILL == place.ended(dies), (point, at)
    place.serve()
    send(place.port, *[make_event("order.paid", id=id) for id in acked])
    place.wait(lambda: place.to_run() == 0, "all jobs to end")

    account = take_account(place, acked)
    assert {} == account.violations
    assert len(PASSES) * len(POINTS) == account.kills
    assert 3 * len(acked) == sum(len(place.jobs(handler)) for handler in HANDLERS)
