"""Databases on servers that run on this machine, made anew for each window.

``BENCHMARK_POSTGRESQL`` and ``BENCHMARK_MARIADB`` name the servers by URLs of a user who may create
databases; else those at the usual ports are used. Contestants whose server does not answer are left
out, and named.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

POSTGRESQL, MARIADB = "postgresql", "mariadb"
URL_VARIABLE = "BENCHMARK_DATABASE_URL"
_ADMIN = {
    POSTGRESQL: os.environ.get(
        "BENCHMARK_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres"
    ),
    MARIADB: os.environ.get("BENCHMARK_MARIADB", "mariadb://root@127.0.0.1:3306/mysql"),
}
_DRIVERS = {POSTGRESQL: "postgresql+psycopg", MARIADB: "mysql+pymysql"}


def is_reachable(kind: str) -> bool:
    """Tell whether a server answers."""
    try:
        _run(kind, "SELECT 1")
    except SQLAlchemyError:
        return False
    return True


@contextmanager
def made(kind: str, directory: Path) -> Iterator[dict[str, str]]:
    """Make a database for the server process in ``directory``; yield what tells it of that."""
    name = _name(directory)
    _run(kind, f"CREATE DATABASE {name}")
    try:
        yield {URL_VARIABLE: url(kind, directory)}
    finally:
        _run(kind, f"DROP DATABASE {name}{' WITH (FORCE)' if kind == POSTGRESQL else ''}")


def engine(kind: str, directory: Path) -> Engine:
    """Return an engine to look into that database with."""
    return create_engine(_url(kind, directory).set(drivername=_DRIVERS[kind]))


def url(kind: str, directory: Path) -> str:
    """Return the URL of that database."""
    return _url(kind, directory).render_as_string(hide_password=False)


def _url(kind: str, directory: Path) -> URL:
    return make_url(_ADMIN[kind]).set(database=_name(directory))


def _name(directory: Path) -> str:
    return f"hooks_bench_{directory.name.lower()}"


def _run(kind: str, statement: str) -> None:
    admin = create_engine(
        make_url(_ADMIN[kind]).set(drivername=_DRIVERS[kind]), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(statement))
    admin.dispose()
