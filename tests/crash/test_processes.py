"""Processes that are stopped, that come back, and that die of what they run."""

import os
import signal
import threading
import time

import pytest
from crashkit import FULL, MakePlace, Place, send
from databases import on_every_database

from animica_hooks.testing import make_event


@on_every_database
def test_a_zombie_has_no_effect(make_place: MakePlace) -> None:
    """A process that is stopped past its lease and comes back changes nothing, and works on."""
    place = make_place(CRASH_LEASE_S="1.5")
    stopped = place.serve()
    send(place.port, make_event("zombie.one", id="evt_1"))
    place.wait(lambda: place.noted("zombies"), "the first attempt to begin")
    os.kill(stopped.pid, signal.SIGSTOP)
    other = place.start("worker")
    place.wait(lambda: place.to_run() == 0, "the other process to do it")
    assert [str(stopped.pid), str(other.pid)] == place.noted("zombies")
    assert ["evt_1"] == place.effects("zombie")

    os.kill(stopped.pid, signal.SIGCONT)
    place.wait(lambda: "marks came too late" in place.log(), "the zombie to be told")

    assert ["evt_1"] == place.effects("zombie")
    assert [("evt_1", "succeeded", 1, 0, None)] == place.jobs("zombie")
    send(place.port, make_event("order.paid", id="evt_2"))
    place.wait(lambda: place.to_run() == 0, "both to go on")
    assert ["evt_2"] == place.effects("coroutine")


def keep_alive(place: Place) -> int:
    """Start the server again whenever it has died, until all is done; return how often it died."""
    process = place.start()
    died = 0

    def all_done() -> bool:
        nonlocal process, died
        if process.poll() is not None:
            died += 1
            place.ended(process)
            process = place.start()
        return place.to_run() == 0

    place.wait(all_done, "all jobs to end")
    return died


@pytest.mark.parametrize(
    ("type", "code"), [("deadly.exit", 3), ("deadly.segfault", -signal.SIGSEGV)]
)
def test_a_job_that_kills_its_process_dies_alone(
    make_place: MakePlace, type: str, code: int
) -> None:
    """Whoever ran beside it runs again uncharged; it is dead as crashed after its own attempts."""
    place = make_place(CRASH_LEASE_S="0.7")
    first = place.serve()
    innocents = [make_event("innocent.one", id=f"evt_{n}") for n in range(6 if FULL else 3)]
    send(place.port, *innocents, make_event(type, id="evt_deadly"))
    assert code == place.ended(first)

    died = keep_alive(place)

    assert 1 == died  # once beside the others, once alone: only that is an attempt
    assert {code} == set(place.deaths)
    [(_, state, attempts, failed, reason)] = place.jobs("deadly")
    assert ("dead", 1, 1) == (state, attempts, failed)
    assert "crashed (failed attempt 1 of 1)" == reason
    assert [("succeeded", 1, 0)] * len(innocents) == [job[1:4] for job in place.jobs("innocent")]
    assert 2 == len(place.noted("deaths"))


@on_every_database
def test_a_process_killed_with_jobs_in_hand_is_made_good_in_time(make_place: MakePlace) -> None:
    """What a killed process held runs again within the lease and a poll, in a process beside it."""
    place = make_place(CRASH_LEASE_S="1")
    dies = place.serve()
    beside = place.start("worker")
    send(place.port, make_event("hang.coroutine", {"seconds": 0.5}, id="evt_1"))
    place.wait(lambda: place.noted("hanging"), "the handler to begin")
    os.killpg(dies.pid, signal.SIGKILL)

    place.wait(lambda: place.to_run() == 0, "the job to end", seconds=10)

    assert beside.poll() is None
    assert ["evt_1"] == place.effects("hang.coroutine")


@on_every_database
@pytest.mark.parametrize("type", ["deadly.segfault", "deadly.killed"])
def test_several_processes_die_of_it_and_of_nothing_else(make_place: MakePlace, type: str) -> None:
    """With processes beside it that are replaced it is dead after its attempts, and only it."""
    place = make_place(CRASH_LEASE_S="0.7", CRASH_ATTEMPTS="2")
    place.options = ("--workers", "2")
    supervisor = place.serve()
    beside = place.start("worker")
    innocents = [make_event("innocent.one", id=f"evt_{n}") for n in range(6)]
    send(place.port, *innocents, make_event(type, id="evt_deadly"))

    def all_done() -> bool:
        nonlocal beside
        if beside.poll() is not None:
            place.ended(beside)
            beside = place.start("worker")
        return place.to_run() == 0

    place.wait(all_done, "all jobs to end")

    [(_, state, attempts, failed, reason)] = place.jobs("deadly")
    assert ("dead", 2, 2) == (state, attempts, failed)
    assert "crashed (failed attempt 2 of 2)" == reason
    assert 3 == len(place.noted("deaths"))
    assert [("succeeded", 1, 0)] * 6 == [job[1:4] for job in place.jobs("innocent")]
    assert supervisor.poll() is None


@on_every_database
def test_a_handler_that_blocks_the_loop_keeps_its_job(make_place: MakePlace) -> None:
    """For several leases the process answers nobody, and yet no other takes the job over."""
    place = make_place(CRASH_LEASE_S="0.7")
    place.serve()
    beside = place.start("worker")
    send(place.port, make_event("block.loop", {"seconds": 3}, id="evt_1"))
    place.wait(lambda: place.to_run() == 0, "it to end")

    assert 1 == len(place.noted("blocking"))
    assert ["evt_1"] == place.effects("block")
    assert "lost" not in place.log()
    assert beside.poll() is None


@on_every_database
def test_a_handler_that_blocks_the_loop_for_too_long_loses_its_job(make_place: MakePlace) -> None:
    """Past its timeout and a grace the job runs elsewhere, and the first changes nothing."""
    place = make_place(CRASH_LEASE_S="0.7", CRASH_TIMEOUT_S="0.5", CRASH_GRACE_S="0.5")
    blocked = place.serve()
    other = place.start("worker")
    place.wait(lambda: "working for" in place.log(), "the other to start")
    event = make_event("block.loop", {"seconds": 6}, id="evt_1")
    sending = threading.Thread(target=send, args=(place.port, event))
    sending.start()
    place.wait(lambda: place.noted("blocking"), "the handler to begin")
    began = time.monotonic()
    place.wait(lambda: place.jobs("block")[0][1] == "succeeded", "the other to do it")
    assert time.monotonic() - began < 6

    assert [str(blocked.pid), str(other.pid)] == place.noted("blocking")
    place.wait(lambda: "too late" in place.log(), "the first to be told")
    sending.join()
    assert ["evt_1"] == place.effects("block")
    assert [("evt_1", "succeeded", 1, 0, None)] == place.jobs("block")
