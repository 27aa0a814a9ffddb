"""Several processes at one SQLite file: one clock, a bell, and fair shares of the write slot."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import time_machine
from storekit import NOON, PATIENCE_S, claim, commit_leased, job_row, new_event, until

from animica_hooks.core.outcome import SECOND, from_micros
from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.store.records import Batch
from animica_hooks.store.turns import WriteTurns

LEASE_S = 30.0
HOUR = 3600 * SECOND
BACK, AHEAD = -HOUR, 48 * HOUR  # what is done to the wall clock
OpenPeer = Callable[[str], Awaitable[Store]]

# Commits one delivery after the other for a while; says how many, and what the longest took.
WRITER = """
import asyncio, json, sys, time
from storekit import new_event
from animica_hooks.store.connect import make_store
from animica_hooks.store.records import Batch

async def main(url, name, seconds):
    store = make_store(url, owner=name, lease_s=30, handlers=1)
    await store.open(migrate=True)
    store.start_maintenance(None)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    commits, longest, end = 0, 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        await store.commit(Batch(deliveries=[new_event(f"{name}_{commits}")]))
        commits += 1
        longest = max(longest, time.monotonic() - began)
    await store.close()
    print(json.dumps([commits, longest]))

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""


@pytest.fixture
async def open_peer(store: Store, database_url: str) -> AsyncIterator[OpenPeer]:
    """Opens the file as other processes do, with the clock as they have it."""
    await store.close()
    opened: list[Store] = []

    async def open_peer(owner: str) -> Store:
        peer = make_store(database_url, owner=owner, lease_s=LEASE_S, handlers=1)
        await peer.open(migrate=True)
        opened.append(peer)
        return peer

    yield open_peer
    for peer in opened:
        await peer.close()


@pytest.mark.parametrize("jump", [BACK, AHEAD])
async def test_setting_the_clock_changes_nothing_while_processes_run(
    open_peer: OpenPeer, jump: int
) -> None:
    """Nobody's lease runs out by it, nor lasts longer, also for who joins after it."""
    with time_machine.travel(from_micros(NOON), tick=False) as wall:
        first = await open_peer("first")
        before = first.now()
        wall.move_to(from_micros(NOON + jump))
        second = await open_peer("second")
        [job] = await commit_leased(first, new_event())

        assert abs(first.now() - before) < PATIENCE_S * SECOND
        assert abs(second.now() - first.now()) < SECOND
        assert abs((await job_row(second, job.id)).due_at - second.now() - LEASE_S * SECOND) < (
            PATIENCE_S * SECOND
        )


async def test_a_clock_that_was_set_back_does_not_keep_the_leases_of_the_dead(
    open_peer: OpenPeer,
) -> None:
    """Whoever comes when all others are gone reads the clock, and no lease is longer than any."""
    with time_machine.travel(from_micros(NOON), tick=False) as wall:
        dead = await open_peer("dead")
        [job] = await commit_leased(dead, new_event())
        await dead.close()
        wall.move_to(from_micros(NOON + BACK))
        heir = await open_peer("heir")

        assert abs(heir.now() - (NOON + BACK)) < PATIENCE_S * SECOND
        assert (await job_row(heir, job.id)).due_at <= heir.now() + LEASE_S * SECOND


async def test_others_hear_of_jobs_that_nobody_holds(open_peer: OpenPeer) -> None:
    """Soon, and not at the next poll; and not of what its maker runs itself."""
    maker, worker = await open_peer("maker"), await open_peer("worker")
    heard: list[str] = []
    worker.start_maintenance(lambda: heard.append("worker"))
    maker.start_maintenance(lambda: heard.append("maker"))

    await commit_leased(maker, new_event("evt_1"))
    await asyncio.sleep(0.1)
    assert [] == heard
    await maker.commit(Batch(deliveries=[new_event("evt_2")]))
    await until(lambda: bool(heard))
    assert ["worker"] == heard
    assert ["evt_2"] == [job.event.id for job in await claim(worker)]


async def test_a_blocked_loop_does_not_keep_the_turn(open_peer: OpenPeer, tmp_path: Path) -> None:
    """A turn that comes while the loop is busy with itself goes to others, until it comes round."""
    turns, others = WriteTurns(tmp_path / "turns"), WriteTurns(tmp_path / "turns")
    others.take_blocking("other")
    taking = asyncio.ensure_future(turns.take("blocked"))
    await until(lambda: turns.held() is not None)
    await asyncio.sleep(0.05)  # its thread waits for the lock
    others.give()
    time.sleep(0.3)  # noqa: ASYNC251 - it is what this is about
    others.take_blocking("other")
    await asyncio.sleep(0.1)
    assert not taking.done()
    others.give()
    async with asyncio.timeout(PATIENCE_S):
        await taking
    turns.give()
    turns.close()
    others.close()


async def test_leases_are_prolonged_past_a_queue_that_does_not_move(open_peer: OpenPeer) -> None:
    """A coroutine that has been granted the turn and can not run does not hold up a heartbeat."""
    peer = await open_peer("peer")
    [job] = await commit_leased(peer, new_event())
    before = (await job_row(peer, job.id)).due_at
    turns = peer.turns  # type: ignore[attr-defined]
    with turns._mutex:
        turns._holder = "nobody"
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.to_thread(peer.renew, [(job.id, job.fence)])
    finally:
        turns.give()
    assert (await job_row(peer, job.id)).due_at > before


@pytest.mark.slow
async def test_processes_write_in_fair_shares(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    """Of four at one file each commits about as often as the others, and nobody waits for long."""
    await store.close()
    seconds = 3
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, database_url, f"writer_{n}", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])},
        )
        for n in range(4)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert "ready\n" == await asyncio.to_thread(writer.stdout.readline)
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        slowest_sync = await asyncio.to_thread(slowest_sync_of, tmp_path, seconds)
        ends = [await asyncio.to_thread(writer.communicate) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    shares, longest = zip(*[json.loads(out) for out, _ in ends], strict=True)
    print(shares, longest, slowest_sync)
    assert max(shares) < 2 * min(shares), shares
    # While the disk stands still nobody gets a turn: each of the others may have waited for that.
    assert max(longest) < 0.5 + 4 * slowest_sync, (longest, slowest_sync)


def slowest_sync_of(folder: Path, seconds: float) -> float:
    """Sync a small file again and again; return the longest that this took."""
    slowest, end = 0.0, time.monotonic() + seconds
    with (folder / "beside").open("wb") as file:
        while (began := time.monotonic()) < end:
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.02)
    return slowest
