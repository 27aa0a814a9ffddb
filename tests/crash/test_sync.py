"""What the operating system sees: no acknowledgement leaves before its commit is on the disk."""

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashkit import MakePlace, Place, send

from animica_hooks.testing import make_event

EVENTS = 20
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>")
SYNCS = ("fsync", "fdatasync")
WRITES = ("pwrite64", "pwritev", "write")

# Where it is missing the run says so, for this proof can not be had otherwise.
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None,
    reason="LEFT OUT: strace is not installed, so that nobody looks whether an ack follows fsync",
)


def steps(trace: Path) -> Iterator[str]:
    """Yield what matters, in order: ``write`` to the log, ``synced`` log, ``ack``."""
    syncing: dict[str, bool] = {}
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if resumed := RESUMED.match(line):
            pid, call = resumed.groups()
            if call in SYNCS and syncing.pop(pid, False):
                yield "synced"
        elif called := CALL.match(line):
            pid, call, arguments = called.groups()
            of_log = "-wal>" in arguments
            if call in SYNCS and "<unfinished" in arguments:
                syncing[pid] = of_log
            elif call in SYNCS and of_log:
                yield "synced"
            elif call in WRITES and of_log:
                yield "write"
            elif "HTTP/1.1 204" in arguments:
                yield "ack"


def acks_unsynced(trace: Path) -> tuple[int, int]:
    """Return how many acknowledgements there are, and before how many the log was not synced."""
    acks = early = 0
    written = synced = False
    for step in steps(trace):
        if step == "write":
            written, synced = True, False
        elif step == "synced":
            synced = True
        else:
            acks += 1
            early += not (written and synced)
            written = False
    return acks, early


def traced(place: Place, **environment: str) -> Path:
    """Run a server under strace and deliver events, one after another; return the trace."""
    trace = place.folder / "trace"
    watched = "trace=fsync,fdatasync,pwrite64,pwritev,write,writev,sendto,sendmsg"
    process = place.serve(
        before=["strace", "-f", "-y", "-e", watched, "-o", str(trace)], **environment
    )
    for n in range(EVENTS):
        send(place.port, make_event("quiet.one", id=f"evt_{n}"))
    place.end(process, signal.SIGTERM)
    return trace


@needs_strace
def test_every_ack_follows_a_sync_of_the_log(make_place: MakePlace) -> None:
    """Between the write of a commit and its 204 the write-ahead log is synced, every time."""
    assert (EVENTS, 0) == acks_unsynced(traced(make_place()))


@needs_strace
def test_acks_without_a_sync_are_seen(make_place: MakePlace) -> None:
    """With synchronous=NORMAL, which loses acknowledged events with the power, the proof fails."""
    acks, early = acks_unsynced(traced(make_place(CRASH_BUG="no sync")))

    assert EVENTS == acks
    assert early > EVENTS / 2
