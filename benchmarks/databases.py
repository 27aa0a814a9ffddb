"""Databases on servers that run on this machine, made anew for each window.

``BENCHMARK_POSTGRESQL`` and ``BENCHMARK_MARIADB`` name the servers by URLs of a user who may create
databases, ``BENCHMARK_REDIS`` one by the URL of a database that is empty; else those at the usual
ports are used. Contestants whose server does not answer are left out, and named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.apps.common import URL_VARIABLE

if TYPE_CHECKING:
    from redis import Redis

POSTGRESQL, MARIADB, REDIS = "postgresql", "mariadb", "redis"
_ADMIN = {
    POSTGRESQL: os.environ.get(
        "BENCHMARK_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres"
    ),
    MARIADB: os.environ.get("BENCHMARK_MARIADB", "mariadb://root@127.0.0.1:3306/mysql"),
}
_REDIS = os.environ.get("BENCHMARK_REDIS", "redis://127.0.0.1:6379/15")
_DRIVERS = {"postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
# What decides whether an ack outlasts a crash of the machine.
_DURABILITY = {
    POSTGRESQL: ("SHOW server_version", "SHOW fsync", "SHOW synchronous_commit"),
    MARIADB: (
        "SELECT version()",
        "SELECT @@innodb_flush_log_at_trx_commit",
        "SELECT @@sync_binlog",
    ),
}


def fault(kind: str) -> str | None:
    """Return why a server cannot be used, or None if it can."""
    try:
        describe(kind)
    except (SQLAlchemyError, OSError):
        return "its server does not answer"
    return None


def describe(kind: str) -> str:
    """Return a server's version, and the settings that durability depends on."""
    if kind == REDIS:
        return _describe_redis()
    facts = [(statement, _run(kind, statement)) for statement in _DURABILITY[kind]]
    shown = [f"{statement.split()[-1].lstrip('@')} {fact}" for statement, fact in facts]
    return ", ".join(shown).replace("server_version ", "").replace("version() ", "")


@contextmanager
def made(kind: str, directory: Path) -> Iterator[dict[str, str]]:
    """Make a database for the server process in ``directory``; yield what tells it of that."""
    if kind == REDIS:
        yield from _made_on_redis()
        return
    name = _name(directory)
    _run(kind, f"CREATE DATABASE {name}")
    try:
        yield {URL_VARIABLE: url(kind, directory)}
    finally:
        _run(kind, f"DROP DATABASE {name}{' WITH (FORCE)' if kind == POSTGRESQL else ''}")


def engine(kind: str, directory: Path) -> Engine:
    """Return an engine to look into that database with."""
    return engine_for(_url(kind, directory))


def engine_for(url: URL | str, **options: str) -> Engine:
    """Return an engine with a driver that is not asynchronous."""
    parsed = make_url(url)
    driver = _DRIVERS.get(parsed.drivername, parsed.drivername)
    return create_engine(parsed.set(drivername=driver), **options)


@contextmanager
def redis() -> Iterator[Redis]:
    """Connect to the database on Redis; its errors are OSErrors."""
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        with Redis.from_url(_REDIS) as connection:
            yield connection
    except RedisError as error:
        raise OSError(f"Redis: {type(error).__name__}") from error


def _made_on_redis() -> Iterator[dict[str, str]]:
    with redis() as connection:
        if connection.dbsize():
            raise OSError("the database on Redis is not empty: name another by BENCHMARK_REDIS")
        try:
            yield {URL_VARIABLE: _REDIS}
        finally:
            connection.flushdb()


def _describe_redis() -> str:
    names = ("appendonly", "appendfsync", "save")
    with redis() as connection:
        version = str(connection.info("server")["redis_version"])
        found = [f"{name} {connection.config_get(name)[name] or 'never'}" for name in names]
    return ", ".join([version, *found])


def url(kind: str | None, directory: Path) -> str:
    """Return the URL of that database, or of the file where no server is needed."""
    if kind is None:
        return f"sqlite:///{directory}/x.db"
    return _url(kind, directory).render_as_string(hide_password=False)


def _url(kind: str, directory: Path) -> URL:
    return make_url(_ADMIN[kind]).set(database=_name(directory))


def _name(directory: Path) -> str:
    return f"hooks_bench_{directory.name.lower()}"


def _run(kind: str, statement: str) -> object:
    admin = engine_for(_ADMIN[kind], isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            found = connection.execute(text(statement))
            return found.scalar() if found.returns_rows else None
    finally:
        admin.dispose()
