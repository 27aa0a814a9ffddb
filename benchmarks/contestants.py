"""Who is measured, how each is run, and where it says what it did."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from benchmarks import databases
from benchmarks.apps.common import HANDLERS_VARIABLE
from benchmarks.databases import MARIADB, POSTGRESQL, REDIS
from benchmarks.ledgers import CeleryLedger, Ledger, Queries, ServerLedger, SQLiteLedger

LIMIT = "limit"
TUTORIAL = "tutorial-sqlite"

NOTHING = "nothing is stored"
SYNCED = "after the fsync"

# A module that python -m runs, and its arguments; {port} and {directory} are filled in.
Command = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One receiver.

    Attributes:
        acked: what the sender may count on once it has its answer.
        server: the command that serves it.
        before, beside: commands that end before it starts, and that run as long as it does.
        path: where it takes deliveries.
        ledger: where it is seen what it did; without one only its speed is looked at.
        trusted: a failure fails the whole run. That of others is only reported.
        deduplicates: whether it promises that a repeated event is stored once.
        database: the kind of server that it needs.
        packages: what else it needs, beyond what the tests do.
        connections: the numbers at which it runs, where none are asked for.
    """

    name: str
    about: str
    acked: str
    server: Command
    ledger: Ledger | None
    before: tuple[Command, ...] = ()
    beside: tuple[Command, ...] = ()
    path: str = "/"
    trusted: bool = True
    deduplicates: bool = True
    database: str | None = None
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    connections: tuple[int, ...] = (64,)

    @property
    def is_ours(self) -> bool:
        """Whether it is the product, and not what it is compared with."""
        return self.trusted and self.ledger is not None

    @property
    def is_synced(self) -> bool:
        """Whether an ack follows the fsync."""
        return self.acked.startswith(SYNCED)

    def fault(self) -> str | None:
        """Return why it cannot run here, or None if it can."""
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            return f"{', '.join(missing)} not installed"
        return databases.fault(self.database) if self.database else None


def serve(app: str, *options: str) -> Command:
    """Return the product's own command."""
    return ("animica_hooks", "serve", app, "--host", "127.0.0.1", "--port", "{port}", *options)


def plain(app: str) -> Command:
    """Return plain uvicorn's."""
    return ("benchmarks.plain", app, "--host", "127.0.0.1", "--port", "{port}")


EVERYWHERE = (1, 64, 256)


def _ledger(database: str | None, queries: Queries) -> Ledger:
    if database is None:
        return SQLiteLedger(queries=queries)
    return ServerLedger(kind=database, queries=queries)


STORED = "SELECT count(*) FROM hooks_events"
HANDLED = "SELECT count(*) FROM hooks_jobs WHERE state = 'succeeded'"


def _products(name: str, database: str | None, label: str) -> tuple[Contestant, ...]:
    wrote = "SELECT count(*) FROM payments"
    app = "benchmarks.apps.product:hooks"
    return (
        Contestant(
            name=name,
            about=f"the product on {label}, default settings, a no-op handler",
            acked=SYNCED,
            server=serve(app),
            ledger=_ledger(database, Queries(stored=STORED, handled=HANDLED)),
            database=database,
            connections=EVERYWHERE,
        ),
        Contestant(
            name=f"{name}-session",
            about="the same, with a handler that writes one row through its `session`",
            acked=SYNCED,
            server=serve("benchmarks.apps.product_session:hooks"),
            ledger=_ledger(database, Queries(stored=STORED, handled=HANDLED, effects=wrote)),
            database=database,
        ),
        Contestant(
            name=f"{name}-2",
            about=f"`{name}` with two processes: `animica-hooks serve --workers 2`",
            acked=SYNCED,
            server=serve(app, "--workers", "2"),
            ledger=_ledger(database, Queries(stored=STORED, handled=HANDLED)),
            database=database,
        ),
        Contestant(
            name=f"{name}-apart",
            about=f"`{name}` with two processes that receive and two `animica-hooks worker`",
            acked=SYNCED,
            server=serve("benchmarks.apps.product:receiver", "--workers", "2"),
            beside=(("animica_hooks", "worker", app),) * 2,
            ledger=_ledger(database, Queries(stored=STORED, handled=HANDLED)),
            database=database,
        ),
    )


def with_handlers(one: Contestant, name: str, count: int, *options: str) -> Contestant:
    """Return the product on the same database with so many no-op handlers for each event."""
    handled = HANDLED.replace("count(*)", f"count(*) / {count}")
    return replace(
        one,
        name=name,
        server=serve("benchmarks.apps.product_handlers:hooks", *options),
        ledger=_ledger(one.database, Queries(stored=STORED, handled=handled)),
        environment={HANDLERS_VARIABLE: str(count)},
    )


def _tutorial(name: str, database: str | None, about: str) -> Contestant:
    queries = Queries(
        stored="SELECT count(*) FROM webhook_events",
        handled="SELECT count(*) FROM webhook_events WHERE status = 'processed'",
    )
    return Contestant(
        name=name,
        about=f"FastAPI, a SQLAlchemy session per request and BackgroundTasks, on {about}",
        acked=f"{SYNCED}, but what has not run when the process ends never does",
        server=plain("benchmarks.apps.tutorial:app"),
        ledger=_ledger(database, queries),
        database=database,
        trusted=False,
        connections=(1, 64),
    )


def _dbos(name: str, database: str | None, label: str) -> Contestant:
    table = "workflow_status" if database is None else "dbos.workflow_status"
    queries = Queries(
        stored=f"SELECT count(*) FROM {table}",
        handled=f"SELECT count(*) FROM {table} WHERE status = 'SUCCESS'",
    )
    return Contestant(
        name=name,
        about=f"DBOS behind FastAPI on {label}: a workflow for each event, named by its id",
        acked=SYNCED,
        server=plain("benchmarks.apps.dbos_workflow:app"),
        ledger=_ledger(database, queries),
        database=database,
        packages=("dbos",),
        trusted=False,
    )


def _hookrelay(name: str, database: str | None, label: str) -> Contestant:
    queries = Queries(
        stored="SELECT count(*) FROM hookrelay_events",
        handled="SELECT count(*) FROM hookrelay_events WHERE status = 'success'",
    )
    return Contestant(
        name=name,
        about=f"hookrelay's router in FastAPI, its worker as a background task, on {label}",
        acked=SYNCED,
        server=plain("benchmarks.apps.hookrelay_router:app"),
        ledger=_ledger(database, queries),
        database=database,
        packages=("hookrelay",),
        trusted=False,
    )


CONTESTANTS = (
    Contestant(
        name=LIMIT,
        about="bare ASGI app on plain uvicorn: verify, parse, answer",
        acked=NOTHING,
        server=plain("benchmarks.apps.limit:app"),
        ledger=None,
        connections=EVERYWHERE,
    ),
    Contestant(
        name="limit-serve",
        about="the same bare app on `animica-hooks serve`: what is the server's part",
        acked=NOTHING,
        server=serve("benchmarks.apps.limit:app"),
        ledger=None,
    ),
    *_products("sqlite", None, "SQLite"),
    *_products("postgresql", POSTGRESQL, "PostgreSQL"),
    *_products("mariadb", MARIADB, "MariaDB"),
    _tutorial(TUTORIAL, None, "SQLite in WAL mode with `synchronous=FULL`"),
    _tutorial("tutorial-postgresql", POSTGRESQL, "PostgreSQL with a pool of 20"),
    Contestant(
        name="celery",
        about="Celery behind FastAPI, Redis as its broker and for results, a worker with defaults",
        acked="in Redis's memory, and so before any fsync; a repeated event runs twice",
        server=plain("benchmarks.apps.celery_task:app"),
        beside=(
            ("celery", "-A", "benchmarks.apps.celery_task:tasks", "worker", "--loglevel=WARNING"),
        ),
        ledger=CeleryLedger(),
        database=REDIS,
        packages=("celery", "redis"),
        trusted=False,
        deduplicates=False,
    ),
    _dbos("dbos-sqlite", None, "SQLite"),
    _dbos("dbos-postgresql", POSTGRESQL, "PostgreSQL"),
    Contestant(
        name="procrastinate",
        about="Procrastinate behind FastAPI on PostgreSQL, a worker with defaults",
        acked=f"{SYNCED}; a repeated event runs twice",
        server=plain("benchmarks.apps.procrastinate_task:app"),
        before=(
            (
                "procrastinate",
                "--app=benchmarks.apps.procrastinate_task.tasks",
                "schema",
                "--apply",
            ),
        ),
        beside=(("procrastinate", "--app=benchmarks.apps.procrastinate_task.tasks", "worker"),),
        ledger=ServerLedger(
            kind=POSTGRESQL,
            queries=Queries(
                stored="SELECT count(*) FROM procrastinate_jobs",
                handled="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
            ),
        ),
        database=POSTGRESQL,
        packages=("procrastinate",),
        trusted=False,
        deduplicates=False,
    ),
    Contestant(
        name="hookspool",
        about="hookspool's intake and dispatcher on SQLite, its events posted to a bare ASGI app",
        acked=SYNCED,
        server=("benchmarks.apps.hookspool_source", "intake"),
        before=(
            ("benchmarks.apps.hookspool_source", "prepare"),
            ("hookspool", "--home", "{directory}", "check"),
            ("hookspool", "--home", "{directory}", "migrate"),
        ),
        beside=(
            ("benchmarks.apps.hookspool_source", "handle"),
            ("hookspool", "--home", "{directory}", "dispatch"),
        ),
        path="/hooks/animica",
        ledger=SQLiteLedger(
            file="spool.db",
            queries=Queries(
                stored="SELECT count(*) FROM events",
                handled="SELECT coalesce(sum(count), 0) FROM batches WHERE state = 'delivered'",
            ),
        ),
        packages=("hookspool",),
        trusted=False,
    ),
    _hookrelay("hookrelay-sqlite", None, "SQLite"),
    _hookrelay("hookrelay-postgresql", POSTGRESQL, "PostgreSQL"),
)
