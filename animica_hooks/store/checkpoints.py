"""Move the write-ahead log into the database, beside the commits and not inside them.

SQLite's automatic checkpoint runs within a COMMIT, and everybody waits for it. Here one
connection of one process does it (a file lock elects the process), while others write.

Rule 1: a checkpoint begins only when a commit that began after the last one has ended. Then the
        log holds pages that are not in the database, and no writer can start it afresh while the
        checkpoint runs, which before SQLite 3.51.3 could corrupt the database
        (https://sqlite.org/wal.html#walresetbug).
Rule 2: a log that has grown long although it was checkpointed is caught up with while nobody
        writes, so that the next writer starts it afresh.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

from animica_hooks.store.turns import FileLock, WriteTurns
from animica_hooks.telemetry import logger
from animica_hooks.threads import DaemonThreads, to_the_end

INTERVAL_S = 0.25
LONG_LOG_PAGES = 4000  # 16 MB


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
        self._begun = 0
        self._ended = 0
        self._covered = 0  # commits that had begun when the last checkpoint ended

    def commit_begins(self) -> None:
        self._begun += 1

    def commit_ended(self) -> None:
        self._ended += 1

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
        while not self._lock.try_lock():  # noqa: ASYNC110 - another process lets go of it
            await asyncio.sleep(INTERVAL_S)
        while True:
            await asyncio.sleep(INTERVAL_S)
            if self._ended <= self._covered:
                continue
            try:
                pages = await self._checkpoint()
                if pages > LONG_LOG_PAGES and self._ended > self._covered:
                    await self._catch_up()
            except sqlite3.Error as error:
                logger.warning("a checkpoint of the database failed: %s", error)

    async def _catch_up(self) -> None:
        await self._turns.take("checkpoint")
        try:
            await self._checkpoint()
        finally:
            self._turns.give()

    async def _checkpoint(self) -> int:
        """Copy what is in the log and not needed there; return the pages that the log has."""
        try:
            return await to_the_end(self._threads.submit(self._checkpoint_in_thread))
        finally:
            self._covered = self._begun

    def _checkpoint_in_thread(self) -> int:
        if self._connection is None:
            self._connection = self._connect()
        _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(pages)
