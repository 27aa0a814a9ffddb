"""The app that is killed again and again, and what is planted in it: kills, and bugs.

It is run by ``animica-hooks serve crash_app:hooks`` with its settings in the environment. Nothing
of the package is changed for it: kills and bugs are put around its methods from here.
"""

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appkit import end_with_the_test
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import Event, Hooks, Job, RetryPolicy
from animica_hooks.dispatch import slots
from animica_hooks.store import committer, sqlite
from animica_hooks.store.base import Store
from animica_hooks.store.committer import Committer
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.server import ServerStore
from animica_hooks.store.session import Unit
from animica_hooks.store.sqlite import SqliteStore

FOLDER = Path(os.environ["CRASH_FOLDER"])
WORK_S = float(os.environ.get("CRASH_WORK_S", "0"))  # that each handler takes
DISK_S = float(os.environ.get("CRASH_DISK_S", "0"))  # that each commit takes, twice
INSERT = text("INSERT INTO effects VALUES (:handler, :event_id)")

hooks = Hooks(
    routers=[],
    lease=float(os.environ.get("CRASH_LEASE_S", "1")),
    shutdown=float(os.environ.get("CRASH_SHUTDOWN_S", "5")),
    concurrency=4,
    # Kills must not use up the attempts of jobs that happen to run alone.
    retry=RetryPolicy(max_attempts=1000, base=0.05, max_delay=0.2),
)


slots.GRACE_S = float(os.environ.get("CRASH_GRACE_S", str(slots.GRACE_S)))
end_with_the_test()


def note(name: str, line: str) -> None:
    """Append a line to a file, which outlives the process."""
    with (FOLDER / name).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


@hooks.on("order.*", name="coroutine")
async def coroutine(event: Event, session: AsyncSession) -> None:
    await asyncio.sleep(WORK_S)
    await session.execute(INSERT, {"handler": "coroutine", "event_id": event.id})
    passed("mid handler")
    await asyncio.sleep(WORK_S)


@hooks.on("order.*", name="plain")
def plain(event: Event, session: Session) -> None:
    session.execute(INSERT, {"handler": "plain", "event_id": event.id})
    threading.Event().wait(WORK_S)


@hooks.on("order.*", name="outside")
async def outside(event: Event, job: Job) -> None:
    await asyncio.sleep(WORK_S)
    note("outside", f"{event.id} {job.idempotency_key}")


# Handlers that are asked for by type


@hooks.on("zombie.one", name="zombie")
async def zombie(event: Event, session: AsyncSession, job: Job) -> None:
    note("zombies", f"{os.getpid()}")
    if sys.argv[1:2] == ["serve"]:
        await asyncio.sleep(1.0)  # in which the test stops the process
    await session.execute(INSERT, {"handler": "zombie", "event_id": event.id})


@hooks.on("block.*", name="block", timeout=float(os.environ.get("CRASH_TIMEOUT_S", "60")))
async def block(event: Event, session: AsyncSession) -> None:
    note("blocking", f"{os.getpid()}")
    if sys.argv[1:2] == ["serve"]:
        time.sleep(event.data["seconds"])  # noqa: ASYNC251 - as handlers should not
    await session.execute(INSERT, {"handler": "block", "event_id": event.id})


@hooks.on(
    "deadly.*",
    name="deadly",
    retry=RetryPolicy(max_attempts=int(os.environ.get("CRASH_ATTEMPTS", "1")), base=0),
)
async def deadly(event: Event) -> None:
    note("deaths", event.id)
    await asyncio.sleep(0.05)
    if event.type == "deadly.exit":
        os._exit(3)
    if event.type == "deadly.killed":  # as of one that takes all memory
        os.kill(os.getpid(), signal.SIGKILL)
    ctypes.string_at(0)


@hooks.on("innocent.*", name="innocent", retry=RetryPolicy(max_attempts=1))
async def innocent(event: Event) -> None:
    note("innocents", event.id)
    await asyncio.sleep(0.2)


@hooks.on("hang.coroutine", name="hang.coroutine")
async def hang_coroutine(event: Event, session: AsyncSession) -> None:
    note("hanging", event.id)
    await asyncio.sleep(event.data.get("seconds", 600))
    await session.execute(INSERT, {"handler": "hang.coroutine", "event_id": event.id})


@hooks.on("hang.plain", name="hang.plain")
def hang_plain(event: Event) -> None:
    note("hanging", event.id)
    threading.Event().wait()


@hooks.on("hang.writer", name="hang.writer")
def hang_writer(event: Event, session: Session) -> None:
    session.execute(INSERT, {"handler": "hang.writer", "event_id": event.id})
    note("hanging", event.id)
    threading.Event().wait()


# Kills at named points

# The point at which to die, and at which pass.
POINT, _, PASS = os.environ.get("CRASH_AT", "").partition("@")
_passes = 0


def passed(point: str) -> None:
    """Die if this is the point, and the pass."""
    global _passes  # noqa: PLW0603 - one process, one count
    if point == POINT:
        _passes += 1
        if _passes == int(PASS):
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type, name: str, wrap: Callable[[Any], Any]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


def points_around_commit(commit: Any) -> Any:
    async def killed(self: Store, batch: Batch) -> Committed:
        if batch.deliveries:
            passed("before insert")
        if batch.marks:
            passed("after handler before mark")
        committed: Committed = await commit(self, batch)
        if batch.deliveries:
            passed("after commit before ack")
        if committed.claimed:
            passed("after claim")
        if batch.marks:
            passed("after mark")
        return committed

    return killed


def points_around_complete(complete: Any) -> Any:
    def killed(self: Unit, *arguments: Any) -> bool:
        passed("after handler before effect")
        done: bool = complete(self, *arguments)
        passed("after effect with mark")
        return done

    return killed


def slow_disk(commit: Any) -> Any:
    """Let kills meet commits, which a fast disk would hide from them most of the time."""

    async def slow(self: Store, batch: Batch) -> Any:
        await asyncio.sleep(DISK_S)
        committed = await commit(self, batch)
        await asyncio.sleep(DISK_S)
        return committed

    return slow


for kind in (SqliteStore, ServerStore):
    if DISK_S:
        around(kind, "commit", slow_disk)
    around(kind, "commit", points_around_commit)
around(Unit, "complete", points_around_complete)


# Bugs


def acks_before_commit(submit: Any) -> Any:
    """Tell the sender that all is well as soon as the delivery is in memory."""

    def early(self: Committer, delivery: Any, tell: Any) -> None:
        submit(self, delivery, lambda _: None)
        asyncio.get_running_loop().call_soon(tell, "new")

    return early


def marks_apart(complete: Any) -> Any:
    """Commit the effect first, and have the mark written later, as for handlers without session."""

    def apart(self: Unit, session: Any, *_: Any) -> bool:
        session.flush()
        self.may_commit = True
        session.connection().commit()
        return False

    return apart


BUG = os.environ.get("CRASH_BUG", "")
if BUG == "acks before commit":
    around(Committer, "submit", acks_before_commit)
if BUG == "no sync":
    sqlite._PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")  # type: ignore[assignment]
if BUG == "marks apart":
    around(Unit, "complete", marks_apart)
    committer.LINGER_S = 0.2
