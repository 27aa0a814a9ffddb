"""Move the write-ahead log into the database, beside the commits and not inside them.

SQLite's automatic checkpoint runs within a COMMIT, and everybody waits for it. Here one
connection of one process does it (a file lock elects the process), while others write.

Rule 1: a checkpoint begins only when somebody has committed since the last one ended. Then the log
        holds pages that are not in the database, and no writer can start it afresh while the
        checkpoint runs, which before SQLite 3.51.3 could corrupt the database
        (https://sqlite.org/wal.html#walresetbug).
Rule 2: a log that has grown long although it was checkpointed is caught up with while nobody
        writes, so that the next writer starts it afresh. Since commits wait meanwhile, that is done
        now and then, however fast the log grows.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path

from animica_hooks.store.turns import FileLock, WriteTurns
from animica_hooks.telemetry import logger
from animica_hooks.threads import DaemonThreads, to_the_end

INTERVAL_S = 1.0  # more often, and pages that change all the time are copied more often
LONG_LOG_PAGES = 64_000  # of 4 KiB
CATCH_UP_S = 5.0  # at least, between two times that a long log is caught up with


class Checkpoints:
    """Checkpoints one database file for as long as it runs.

    Args:
        connect: opens a connection; called in a thread.
    """

    def __init__(
        self, path: Path, turns: WriteTurns, connect: Callable[[], sqlite3.Connection]
    ) -> None:
        self._lock = FileLock(path.with_name(path.name + "-checkpoints"))
        self._turns = turns
        self._connect = connect
        self._threads = DaemonThreads("animica-hooks-checkpoint")
        self._connection: sqlite3.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: int | None = None  # the data version when the last checkpoint had ended

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="animica-hooks checkpoints")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            self._connection.close()
        self._threads.close()
        self._lock.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        caught_up = -math.inf
        while True:
            await asyncio.sleep(INTERVAL_S)
            if not self._lock.try_lock():
                continue
            try:
                is_long = await self._checkpoint() > LONG_LOG_PAGES
                if is_long and loop.time() >= caught_up + CATCH_UP_S:
                    await self._catch_up()
                    caught_up = loop.time()
            except sqlite3.Error as error:
                logger.warning("a checkpoint of the database failed: %s", error)

    async def _catch_up(self) -> None:
        await self._checkpoint()  # again beside the commits, so that little is left
        await self._turns.take("checkpoint")
        try:
            await self._checkpoint()
        finally:
            self._turns.give()

    async def _checkpoint(self) -> int:
        return await to_the_end(self._threads.submit(self._checkpoint_in_thread))

    def _checkpoint_in_thread(self) -> int:
        """Copy what is in the log and not needed there; return the pages that the log has."""
        if self._connection is None:
            self._connection = self._connect()
        if self._seen == self._version(self._connection):
            return 0  # nobody has committed
        _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._seen = self._version(self._connection)
        return int(pages)

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return a number that changes with each commit of another connection."""
        [(version,)] = connection.execute("PRAGMA data_version")
        return int(version)
