"""How to read from each contestant's database what it really did: its own word is not evidence."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import text

from benchmarks import databases


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a contestant's database holds: events, finished handlers, rows handlers wrote."""

    stored: int
    handled: int
    effects: int | None


class Ledger(Protocol):
    """Reads a contestant's database behind its back."""

    def count(self, directory: Path) -> Counts:
        """Return what the database in this server's directory holds right now."""
        ...


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The counting statements, without those of what a contestant has not."""

    stored: str
    handled: str
    effects: str | None = None

    def statement(self) -> str:
        """Return them as one statement, so that the figures belong together."""
        return f"SELECT ({self.stored}), ({self.handled}), ({self.effects or 'SELECT NULL'})"


@dataclass(frozen=True, kw_only=True)
class SQLiteLedger:
    """Counts in the server's SQLite file."""

    queries: Queries
    file: str = "x.db"

    def count(self, directory: Path) -> Counts:
        """Count as nobody who could block the server's writer, or checkpoint."""
        uri = f"{(directory / self.file).as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            return _counts(connection.execute(self.queries.statement()).fetchone())


@dataclass(frozen=True, kw_only=True)
class ServerLedger:
    """Counts on a database server."""

    kind: str
    queries: Queries

    def count(self, directory: Path) -> Counts:
        """Count with a connection that is closed at once: the database gets dropped."""
        engine = databases.engine(self.kind, directory)
        try:
            with engine.connect() as connection:
                return _counts(tuple(connection.execute(text(self.queries.statement())).one()))
        finally:
            engine.dispose()


@dataclass(frozen=True)
class CeleryLedger:
    """Counts on Redis: results are of tasks that ran, all else waits in the queue or at a worker.

    A task that is being run is neither, so that what is stored may be too little for a moment.
    """

    def count(self, _: Path) -> Counts:
        """Count keys, and the lengths of the two."""
        with databases.redis() as connection:
            waiting = int(connection.llen("celery")) + int(connection.hlen("unacked"))
            handled = sum(1 for _ in connection.scan_iter("celery-task-meta-*", count=5000))
        return Counts(stored=waiting + handled, handled=handled, effects=None)


def _counts(row: tuple[int, int, int | None]) -> Counts:
    stored, handled, effects = row
    # MariaDB divides into decimals. What is handled by a part of its handlers is not handled.
    return Counts(stored=stored, handled=int(handled), effects=effects)
