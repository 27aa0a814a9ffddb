"""From a database URL to a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from animica_hooks.errors import ConfigurationError
from animica_hooks.store.base import Store
from animica_hooks.store.sqlite import SqliteStore

# Entry points of this group make stores of other databases. Each is named by the scheme of its
# URLs, and called with the URL (SQLAlchemy's), and owner, lease_s and handlers by name.
ENTRY_POINTS = "animica_hooks.stores"

_EXAMPLE = "sqlite:///animica-hooks.db (in the working directory) or sqlite:////var/lib/hooks.db"


def make_store(url: str, *, owner: str, lease_s: float, handlers: int) -> Store:
    """Return the store of a database, not opened yet.

    Args:
        handlers: sessions of handlers that may be open at once.

    Raises:
        ConfigurationError: the URL is not one of a database that is supported.
    """
    parsed = parse_url(url)
    scheme = parsed.drivername
    if scheme == "sqlite":
        path = _sqlite_path(parsed.database, options=bool(parsed.query), host=parsed.host)
        return SqliteStore(path, owner=owner, lease_s=lease_s, handlers=handlers)
    if scheme in ("postgresql", "postgres"):
        _check_server(parsed, extra="postgresql", packages=("asyncpg", "psycopg"))
        from animica_hooks.store.postgres import PostgresStore

        return PostgresStore(parsed, owner=owner, lease_s=lease_s, handlers=handlers)
    if scheme in ("mariadb", "mysql"):
        _check_server(parsed, extra="mysql", packages=("asyncmy", "pymysql"))
        from animica_hooks.store.mariadb import MariadbStore

        return MariadbStore(parsed, owner=owner, lease_s=lease_s, handlers=handlers)
    return _others(scheme)(parsed, owner=owner, lease_s=lease_s, handlers=handlers)


def parse_url(url: str) -> URL:
    """Return the parts of a database URL.

    Raises:
        ConfigurationError: it is not one. Nothing of it is quoted: it may have a password.
    """
    try:
        return make_url(url)
    except ArgumentError:
        raise ConfigurationError(f"database_url is not a URL: write {_EXAMPLE}.") from None
    except ValueError:
        raise ConfigurationError(
            "database_url has a port that is not a number: write user:password@host:port, where an "
            "'@' in the password is %40, and one host only."
        ) from None


def _others(scheme: str) -> Callable[..., Store]:
    """Return what makes the stores of a database that is not ours, from the package that has it."""
    from importlib.metadata import entry_points

    for found in entry_points(group=ENTRY_POINTS, name=scheme):
        try:
            make: Callable[..., Store] = found.load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"the store of {scheme}:// can not be imported from {found.value} ({error}): "
                "install what it needs, or a version that fits."
            ) from error
        return make
    raise ConfigurationError(
        f"database_url begins with {scheme}://, which is not supported: write postgresql://, "
        f"mariadb:// or mysql://, without a driver, or {_EXAMPLE}; or install the package that "
        "has a store for it."
    )


def _check_server(url: URL, *, extra: str, packages: Sequence[str]) -> None:
    if not url.database:
        raise ConfigurationError(
            f"database_url names no database: write {url.drivername}://user@host/database."
        )
    named = url.query.get("host", ())
    hosts = [url.host or "", *([named] if isinstance(named, str) else named)]
    if len([name for host in hosts for name in host.split(",") if name]) > 1:
        raise ConfigurationError(
            "database_url names several hosts, and one is supported: name the server to write to, "
            "by a name or an address that moves with it where another may take its place."
        )
    for package in packages:
        if find_spec(package) is None:
            raise ConfigurationError(
                f"{package} is not installed: pip install 'animica-hooks[{extra}]'."
            )


def _sqlite_path(database: str | None, *, options: bool, host: str | None) -> Path:
    if not database or database == ":memory:" or database.startswith("file:"):
        raise ConfigurationError(
            f"database_url names no file, and in memory nothing is durable: write {_EXAMPLE}."
        )
    if options or host:
        raise ConfigurationError(
            f"database_url has a host or options, which are not supported: write {_EXAMPLE}."
        )
    path = Path(database).absolute()
    if path.is_dir():
        raise ConfigurationError(f"the database {path} is a directory: name a file in it.")
    if not path.parent.is_dir():
        raise ConfigurationError(f"the directory of the database {path} does not exist: create it.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigurationError(f"the database {path} can not be written: change its permissions.")
    return path
