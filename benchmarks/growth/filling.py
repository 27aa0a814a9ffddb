"""Databases that hold many events already, which they make themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, text

from animica_hooks.core.outcome import SECOND
from animica_hooks.core.retention import DAY_S
from animica_hooks.store import schema
from benchmarks import databases, scratch
from benchmarks.contestants import Contestant

HANDLER = 1
BODY_BYTES = 300


@dataclass(frozen=True)
class Dialect:
    """How a database makes rows by itself.

    Attributes:
        begin, rows: around a SELECT, which they give ``rows`` numbers from 1.
        number, id, body: what each row has of its own.
    """

    begin: str
    rows: str
    number: str
    id: str
    body: str


DIALECTS = {
    "sqlite": Dialect(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})",
        "FROM n",
        "n",
        "lower(hex(randomblob(12)))",
        f"randomblob({BODY_BYTES})",
    ),
    "postgresql": Dialect(
        "",
        "FROM generate_series(1, {rows}) AS n",
        "n",
        "md5(random()::text || n)",
        f"convert_to(repeat(md5(n::text), {BODY_BYTES // 32}), 'UTF8')",
    ),
    "mariadb": Dialect(
        "",
        "FROM seq_1_to_{rows} AS s",
        "s.seq",
        "md5(concat(rand(), s.seq))",
        f"repeat(md5(s.seq), {BODY_BYTES // 32})",
    ),
}
FILL_EVENTS = """
INSERT INTO hooks_events (seq, endpoint, id, type, received_at, headers, body)
{begin} SELECT {start} + {number}, 'animica', {id}, 'order.paid', {at}, '', {body} {rows}
"""
FILL_JOBS = """
INSERT INTO hooks_jobs (id, event_seq, handler_id, state, due_at, finished_at, created_at,
    attempts, failed, fence, orphaned)
{begin} SELECT {start} + {number}, {start} + {number}, {handler}, '{state}', {due}, {ended}, {at},
    0, 0, 0, 0 {rows}
"""


@dataclass(frozen=True)
class Size:
    """How many events there are, written ``pending+finished``."""

    pending: int
    finished: int

    @classmethod
    def read(cls, written: str) -> Size:
        """Return what is written."""
        pending, finished = written.split("+")
        return cls(int(pending), int(finished))

    @property
    def total(self) -> int:
        """All of them."""
        return self.pending + self.finished

    def __str__(self) -> str:
        return f"{self.pending}+{self.finished}"


@contextmanager
def filled(contestant: Contestant, size: Size) -> Iterator[Path]:
    """Yield the folder of a database with so many events, which is removed at the end."""
    with TemporaryDirectory(dir=scratch.folder()) as folder, ExitStack() as at_end:
        directory = Path(folder)
        if contestant.database:
            at_end.enter_context(databases.made(contestant.database, directory))
        _fill(contestant.name, databases.url(contestant.database, directory), size)
        yield directory


def _fill(kind: str, url: str, size: Size) -> None:
    """Make events with a job each: finished ones of a month ago, then some that are due."""
    engine = databases.engine_for(url)
    now = time.time_ns() // 1000
    with engine.begin() as connection:
        if kind == "sqlite":
            connection.execute(text("PRAGMA cache_size = -1000000"))  # KiB: of the index, all
        schema.upgrade(connection)
        connection.execute(
            text(
                "INSERT INTO hooks_handlers (id, name, endpoint, patterns, seen_at)"
                f" VALUES ({HANDLER}, 'grown', 'animica', '[]', {now})"
            )
        )
        month_ago = now - int(30 * DAY_S) * SECOND
        for statement in (
            *_filling(kind, 0, size.finished, "succeeded", month_ago),
            *_filling(kind, size.finished, size.pending, "available", now),
        ):
            connection.execute(text(statement))
    if kind == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _settle(connection, size)
    engine.dispose()


def _settle(connection: Connection, size: Size) -> None:
    # Rows that bring their numbers do not move the sequences on.
    for sequence in ("hooks_events_seq_seq", "hooks_jobs_id_seq"):
        connection.execute(text(f"SELECT setval('{sequence}', {size.total + 1})"))
    connection.execute(text("VACUUM ANALYZE"))


def _filling(kind: str, start: int, rows: int, state: str, at: int) -> Iterator[str]:
    if not rows:
        return
    dialect = DIALECTS[kind]
    pending = state == "available"
    values = {
        "begin": dialect.begin.format(rows=rows),
        "rows": dialect.rows.format(rows=rows),
        "number": dialect.number,
        "id": dialect.id,
        "body": dialect.body,
        "start": start,
        "at": at,
        "handler": HANDLER,
        "state": state,
        "due": f"{at} + {dialect.number}" if pending else "NULL",
        "ended": "NULL" if pending else at,
    }
    yield FILL_EVENTS.format(**values)
    yield FILL_JOBS.format(**values)
