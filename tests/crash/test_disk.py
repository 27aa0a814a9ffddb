"""Disks that are full for a write, or for a while, and disks that are slow."""

import asyncio
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crashkit import FULL, PATIENCE_S, MakePlace, Place, insist, request, send, take_account

from animica_hooks.testing import make_event

ACK_DEADLINE_S = 3.0  # the default
FSYNC_S = 0.3
RATE, SECONDS = 100, 10 if FULL else 4  # of events that a slow disk is sent

# Where it is missing the run says so, for disks can not be made to fail otherwise.
pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None,
    reason="LEFT OUT: strace is not installed, so that no disk is full and none is slow",
)
WRITING = "pwrite64,pwritev,write,ftruncate,fallocate,fsync,fdatasync"


@contextmanager
def injected(place: Place, pid: int, what: str, *files: Path) -> Iterator[Path]:
    """Meddle with a running process's calls on some files; gives the trace of these calls."""
    trace = place.folder / "trace"
    paths = [part for file in files for part in ("-P", str(file))]
    strace = subprocess.Popen(
        ["strace", "-f", "-y", "-o", trace, *paths, "-e", f"inject={what}", "-p", str(pid)],
        stderr=subprocess.PIPE,
    )
    try:
        assert strace.stderr is not None
        assert b"attached" in strace.stderr.readline()
        yield trace
    finally:
        strace.send_signal(signal.SIGINT)  # it lets go of the process
        strace.communicate()


def database(place: Place) -> list[Path]:
    return [place.folder / f"hooks.db{end}" for end in ("", "-wal", "-shm")]


def readable(place: Place) -> int:
    """Return how many events whoever looks into the database finds."""
    with sqlite3.connect(f"file:{place.folder / 'hooks.db'}?mode=ro", uri=True) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM hooks_events").fetchall()
    connection.close()
    return int(count)


@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8, 13, 21, 34] if FULL else [2, 5, 13])
def test_a_disk_that_is_full_for_one_write(make_place: MakePlace, nth: int) -> None:
    """Whichever write fails, senders come again, and nothing is lost or done twice."""
    place = make_place()
    process = place.serve()
    ids = [f"evt_{n}" for n in range(15)]
    what = f"pwrite64,fdatasync:error=ENOSPC:when={nth}"
    with injected(place, process.pid, what, *database(place)) as trace:
        send(place.port, *[make_event("order.paid", id=id) for id in ids])
        place.wait(lambda: place.to_run() == 0, "all jobs to end")

    assert "ENOSPC" in trace.read_text()
    assert process.poll() is None
    assert {} == take_account(place, ids).violations


def test_a_disk_that_is_full_for_a_while(make_place: MakePlace) -> None:
    """Senders get 503 in time, what is stored can be read, and no restart is needed."""
    place = make_place()
    process = place.serve()
    before = [f"evt_before_{n}" for n in range(5)]
    send(place.port, *[make_event("order.paid", id=id) for id in before])
    place.wait(lambda: place.to_run() == 0, "all jobs to end")

    with injected(place, process.pid, f"{WRITING}:error=ENOSPC", *database(place)):
        for n in range(3):
            began = time.monotonic()
            assert 503 == asyncio.run(request(place.port, make_event("order.paid", id=f"evt_{n}")))
            assert time.monotonic() - began < ACK_DEADLINE_S + 3
        assert len(before) == readable(place)
        assert len(before) == len(place.jobs("coroutine"))

    after = [f"evt_{n}" for n in range(5)]
    send(place.port, *[make_event("order.paid", id=id) for id in after])
    place.wait(lambda: place.to_run() == 0, "all jobs to end")
    assert process.poll() is None
    assert {} == take_account(place, before + after).violations


def test_a_slow_disk_is_shared(make_place: MakePlace) -> None:
    """Where each sync of the log takes long, the events that wait for one share it."""
    place = make_place()
    process = place.serve()
    send(place.port, make_event("quiet.one", id="evt_first"))
    delayed = f"fdatasync,fsync:delay_exit={int(FSYNC_S * 1_000_000)}"
    with injected(place, process.pid, delayed, place.folder / "hooks.db-wal") as trace:
        took = asyncio.run(steadily(place.port))

    assert RATE * SECONDS == len(took)
    assert max(took) < ACK_DEADLINE_S
    by_thread = Counter(re.findall(r"^(\d+) .*sync.*\(DELAYED\)", trace.read_text(), re.MULTILINE))
    [(_, syncs)] = by_thread.most_common(1)  # the other thread's are checkpoints
    print(len(took), by_thread, max(took))
    assert len(took) / syncs >= 20


async def steadily(port: int) -> list[float]:
    """Send events at an even rate, whatever comes back; return how long each was on its way."""

    async def one(n: int) -> float:
        began = time.monotonic()
        await insist(port, make_event("quiet.one", id=f"evt_{n}"))
        return time.monotonic() - began

    sending = []
    for n in range(RATE * SECONDS):
        sending.append(asyncio.create_task(one(n)))
        await asyncio.sleep(1 / RATE)
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*sending)
