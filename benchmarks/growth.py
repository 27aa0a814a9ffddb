"""How claims, inserts and pruning fare as the tables grow; see README.md in this folder."""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, create_engine, make_url, text

from animica_hooks.core.event import Event
from animica_hooks.core.fair import Claimant
from animica_hooks.core.outcome import COMPLETED, SECOND, from_micros
from animica_hooks.core.retention import DAY_S, Retention
from animica_hooks.store import schema
from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.store.prune import prune
from animica_hooks.store.records import Batch, LeasedJob, Mark, NewEvent
from benchmarks import scratch
from benchmarks.goals import GROWN

SIZES = ("0+0", "20000+0", "0+50000")
TIMES = 200
PRUNED = 5000
BATCH = 64
INSERT = f"insert {BATCH} events"
HANDLER = 1
BODY_BYTES = 300
SERVERS = {
    "postgresql": os.environ.get(
        "ANIMICA_HOOKS_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres"
    ),
    "mariadb": os.environ.get("ANIMICA_HOOKS_TEST_MARIADB", "mariadb://root@127.0.0.1:3306/mysql"),
}
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}


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
    """How many rows there are, written ``pending+finished``."""

    pending: int
    finished: int

    @classmethod
    def read(cls, written: str) -> "Size":
        pending, finished = written.split("+")
        return cls(int(pending), int(finished))


@dataclass(frozen=True)
class Measure:
    """How long one thing took each time, in seconds."""

    database: str
    what: str
    size: Size
    times: Sequence[float]

    @property
    def row(self) -> tuple[str, ...]:
        cuts = statistics.quantiles(self.times, n=100)
        figures = (cuts[49], cuts[98], max(self.times))
        return (
            self.database,
            self.what,
            f"{self.size.pending:,}",
            f"{self.size.finished:,}",
            *(f"{figure * 1000:.1f}" for figure in figures),
        )


HEAD = ("database", "what", "pending", "finished", "p50 ms", "p99 ms", "longest ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    options = _parser().parse_args(arguments)
    measures: list[Measure] = []
    for kind in options.databases or _available():
        for size in options.sizes:
            with _database(kind) as url:
                _fill(kind, url, size)
                measures += asyncio.run(_measure(kind, url, size, options.times))
        with _database(kind) as url:
            size = Size(0, options.prune)
            _fill(kind, url, size)
            measures += asyncio.run(_measure_pruning(kind, url, size, options.times))
    print(_table([HEAD, *(measure.row for measure in measures)]))
    print(*_kept(measures), sep="\n")
    return 0


def _kept(measures: Sequence[Measure]) -> Iterator[str]:
    """Tell how much of the rate of inserts is left beside the most rows."""
    for kind, goal in GROWN.items():
        found = [m for m in measures if m.database == kind and m.what == INSERT]
        if len(found) > 1:
            found.sort(key=lambda measure: measure.size.pending + measure.size.finished)
            few, many = found[0], found[-1]
            ratio = statistics.median(few.times) / statistics.median(many.times)
            verdict = "met" if ratio >= goal else "MISSED"
            yield (f"{kind}: stores at {ratio:.2f} of the rate, goal >= {goal} ({verdict})")


def _available() -> list[str]:
    """Return the databases that answer, and that the store speaks."""
    found = ["sqlite"]
    for kind, url in SERVERS.items():
        try:
            with create_engine(make_url(url).set(drivername=DRIVERS[kind])).connect():
                make_store(url, owner="", lease_s=1, handlers=1)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is left out, and said
            print(f"without {kind}: {type(error).__name__}", file=sys.stderr)
        else:
            found.append(kind)
    return found


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        f"| {' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True))} |" for row in rows
    )


# Databases, and what is in them


@contextmanager
def _database(kind: str) -> Iterator[str]:
    """Yield the URL of an empty database, which is removed at the end."""
    name = f"hooks_growth_{uuid.uuid4().hex[:8]}"
    if kind == "sqlite":
        path = scratch.folder() / f"{name}.db"
        try:
            yield f"sqlite:///{path}"
        finally:
            for file in path.parent.glob(f"{name}*"):
                file.unlink()
        return
    url = make_url(SERVERS[kind])
    admin = create_engine(url.set(drivername=DRIVERS[kind]), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}{force}"))
        admin.dispose()


def _fill(kind: str, url: str, size: Size) -> None:
    """Make events with a job each: finished ones of a month ago, then some that are due."""
    engine: Engine = create_engine(make_url(url).set(drivername=DRIVERS[kind]))
    now = time.time_ns() // 1000
    began = time.monotonic()
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
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if kind == "postgresql":
            # Rows that bring their numbers do not move the sequences on.
            after = size.pending + size.finished + 1
            for sequence in ("hooks_events_seq_seq", "hooks_jobs_id_seq"):
                connection.execute(text(f"SELECT setval('{sequence}', {after})"))
            connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    seconds = time.monotonic() - began
    print(f"{kind}: {size}, filled in {seconds:.0f} s", file=sys.stderr, flush=True)


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


async def _timed(times: list[float], work: Awaitable[Any]) -> Any:
    began = time.perf_counter()
    result = await work
    times.append(time.perf_counter() - began)
    return result


async def _opened(url: str) -> Store:
    store = make_store(url, owner="growth", lease_s=600, handlers=1)
    await store.open(migrate=False)
    store.start_maintenance(lambda: None)
    return store


# What is measured


async def _measure(kind: str, url: str, size: Size, times: int) -> list[Measure]:
    """Take turns at a batch of new events and a claim of as many jobs as that."""
    store = await _opened(url)
    inserts: list[float] = []
    claims: list[float] = []
    try:
        for _ in range(times):
            await _timed(inserts, store.commit(Batch(deliveries=_events())))
            claim = Batch(claim=BATCH, claim_for=[Claimant(HANDLER)])
            committed = await _timed(claims, store.commit(claim))
            assert len(committed.claimed) == BATCH
            await store.commit(Batch(marks=[_completed(job) for job in committed.claimed]))
    finally:
        await store.close()
    return [
        Measure(kind, INSERT, size, inserts),
        Measure(kind, f"claim {BATCH} jobs", size, claims),
    ]


def _events() -> list[NewEvent]:
    now = time.time_ns() // 1000
    return [
        NewEvent(
            Event(
                id=f"evt_{uuid.uuid4().hex}",
                type="order.paid",
                body=os.urandom(BODY_BYTES),
                endpoint="animica",
                received_at=from_micros(now),
            ),
            now,
            (HANDLER,),
            "secret",
        )
        for _ in range(BATCH)
    ]


def _completed(job: LeasedJob) -> Mark:
    return Mark(job.id, job.fence, job.attempts + 1, COMPLETED)


async def _measure_pruning(kind: str, url: str, size: Size, times: int) -> list[Measure]:
    """Write without a pause, at first alone, then while another process prunes all that is old."""
    store = await _opened(url)
    alone: list[float] = []
    beside: list[float] = []
    spawning = multiprocessing.get_context("spawn")
    told: Any = spawning.SimpleQueue()
    pruner = spawning.Process(target=_prune, args=(url, told))
    try:
        for _ in range(times):
            await _timed(alone, store.commit(Batch(deliveries=_events())))
        pruner.start()
        while told.empty() and pruner.is_alive():
            await _timed(beside, store.commit(Batch(deliveries=_events())))
    finally:
        await store.close()
    return [
        Measure(kind, f"insert {BATCH} events, alone", size, alone),
        Measure(kind, f"insert {BATCH} events beside pruning", size, beside),
        Measure(kind, "statements of a batch of pruning", size, told.get()),
    ]


def _prune(url: str, told: Any) -> None:
    """Delete all events of a month ago: their bodies in one pass, the rest in another.

    Args:
        told: in the end, for how long each batch kept what it had locked, but for its COMMIT.
    """
    held: list[float] = []

    async def work() -> None:
        store = await _opened(url)
        try:
            transact = store.transact
            setattr(store, "transact", lambda h, work: transact(h, _timing(held, work)))  # noqa: B010
            began = time.monotonic()
            bare = await prune(store, Retention(bodies=DAY_S))
            gone = await prune(store, Retention(bodies=DAY_S, events=10 * DAY_S))
            seconds = time.monotonic() - began
            print(f"pruned {bare + gone} in {seconds:.0f} s", file=sys.stderr, flush=True)
        finally:
            await store.close()

    asyncio.run(work())
    told.put(held)


def _timing(times: list[float], work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def timed(connection: Any) -> Any:
        began = time.perf_counter()
        result = work(connection)
        times.append(time.perf_counter() - began)
        return result

    return timed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "--databases", nargs="+", choices=[*DIALECTS], help="default: those that answer"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=Size.read,
        default=[Size.read(size) for size in SIZES],
        metavar="PENDING+FINISHED",
        help=f"jobs that are there beforehand; default: {' '.join(SIZES)}",
    )
    parser.add_argument("--times", type=int, default=TIMES, help=f"default: {TIMES}")
    parser.add_argument(
        "--prune", type=int, default=PRUNED, help=f"events to prune; default: {PRUNED}"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
