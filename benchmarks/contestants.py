"""Who is measured, and how to read from each one's database what it really did."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sqlalchemy import text

from benchmarks import databases

LIMIT = "limit"
TUTORIAL = "tutorial-sqlite"
# Ours is served by its own command, whatever is compared with it by the server itself.
SERVE = ("animica_hooks", "serve")
PLAIN = ("benchmarks.plain",)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a contestant's database holds: events, finished handlers, rows handlers wrote."""

    stored: int
    handled: int
    effects: int | None


class Ledger(Protocol):
    """Reads a contestant's database behind its back: its own word is not evidence."""

    def count(self, directory: Path) -> Counts:
        """Return what the database in this server's directory holds right now."""
        ...


@dataclass(frozen=True, kw_only=True)
class SQLiteLedger:
    """Three counting statements against the server's SQLite file."""

    stored: str
    handled: str
    effects: str | None = None

    def count(self, directory: Path) -> Counts:
        """Count in one read transaction, so that the figures belong together."""
        # Read-only: this connection must neither block the server's writer nor checkpoint.
        uri = f"{(directory / 'x.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            return Counts(
                stored=_number(connection, self.stored),
                handled=_number(connection, self.handled),
                effects=_number(connection, self.effects) if self.effects else None,
            )


@dataclass(frozen=True, kw_only=True)
class ServerLedger:
    """The same on a database server."""

    kind: str
    stored: str
    handled: str

    def count(self, directory: Path) -> Counts:
        """Count in one statement, so that the figures belong together."""
        engine = databases.engine(self.kind, directory)
        try:
            with engine.connect() as connection:
                counted = connection.execute(text(f"SELECT ({self.stored}), ({self.handled})"))
                stored, handled = counted.one()
        finally:
            engine.dispose()
        return Counts(stored=stored, handled=handled, effects=None)


def _number(connection: sqlite3.Connection, statement: str) -> int:
    (number,) = connection.execute(statement).fetchone()
    return int(number)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One receiver.

    Without a ledger it stores nothing, and only its speed is looked at. A failure of one that
    is `trusted` fails the whole run; of the others it is only reported. `server` is the module
    that serves it, and its first arguments; `database` the kind of server that it needs.
    """

    name: str
    about: str
    app: str
    ledger: Ledger | None
    server: tuple[str, ...] = SERVE
    trusted: bool = True
    database: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


STORED = "SELECT count(*) FROM hooks_events"
HANDLED = "SELECT count(*) FROM hooks_jobs WHERE state = 'succeeded'"

CONTESTANTS = (
    Contestant(
        name=LIMIT,
        about="bare ASGI app on plain uvicorn: verify, parse, answer; stores nothing",
        app="benchmarks.apps.limit:app",
        ledger=None,
        server=PLAIN,
    ),
    Contestant(
        name="limit-serve",
        about="the same bare app on `animica-hooks serve`: what is the server's part",
        app="benchmarks.apps.limit:app",
        ledger=None,
    ),
    Contestant(
        name="sqlite",
        about="the product on SQLite, default settings, a no-op handler",
        app="benchmarks.apps.sqlite:hooks",
        ledger=SQLiteLedger(stored=STORED, handled=HANDLED),
    ),
    Contestant(
        name="sqlite-session",
        about="the same, with a handler that writes one row through its `session`",
        app="benchmarks.apps.sqlite_session:hooks",
        ledger=SQLiteLedger(
            stored=STORED, handled=HANDLED, effects="SELECT count(*) FROM payments"
        ),
    ),
    *(
        Contestant(
            name=kind,
            about=f"the product on {label}, default settings, a no-op handler",
            app="benchmarks.apps.server:hooks",
            ledger=ServerLedger(kind=kind, stored=STORED, handled=HANDLED),
            database=kind,
        )
        for kind, label in ((databases.POSTGRESQL, "PostgreSQL"), (databases.MARIADB, "MariaDB"))
    ),
    Contestant(
        name=TUTORIAL,
        about="plain uvicorn, FastAPI, SQLAlchemy session per request, BackgroundTasks, on SQLite",
        app="benchmarks.apps.tutorial_sqlite:app",
        ledger=SQLiteLedger(
            stored="SELECT count(*) FROM webhook_events",
            handled="SELECT count(*) FROM webhook_events WHERE status = 'processed'",
        ),
        trusted=False,
        server=PLAIN,
    ),
)
