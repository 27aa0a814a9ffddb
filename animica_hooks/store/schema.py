"""The schema's version, and the way there by Alembic.

Rule 1: a version has four digits, of which the first two are its era. Within an era migrations only
        add what older code can do without, so that processes of several releases work on one
        database, and a release can be taken back without its migrations. Whatever older code could
        not go on with begins a new era.
Rule 2: nobody goes back: a newer version of the era is left as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text

from animica_hooks.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0004"  # the newest migration; saves importing Alembic at each start
_ERA = 2  # digits
VERSION_TABLE = "hooks_version"


def current(connection: Connection) -> str | None:
    """Return the version that the database is at; None where it has no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def upgrade(connection: Connection) -> None:
    """Bring the database to ``HEAD``, within the transaction that the caller has begun.

    Raises:
        ConfigurationError: the database is newer than this package can work with.
    """
    at = current(connection)
    if suffices(at):
        return
    require_known(at)

    from alembic import command

    command.upgrade(_config(connection), HEAD)


def suffices(version: str | None) -> bool:
    """Tell whether this package can work with a database that is at a version."""
    return version == HEAD or is_newer(version)


def is_newer(version: str | None) -> bool:
    """Tell whether a version has what this package needs, and what a newer one has added."""
    return (
        version is not None
        and version.isdecimal()
        and len(version) == len(HEAD)
        and version[:_ERA] == HEAD[:_ERA]
        and version > HEAD
    )


def require_enough(version: str | None) -> None:
    """Raise ``ConfigurationError`` unless ``version``, a database's, suffices."""
    if suffices(version):
        return
    require_known(version)
    found = "has no tables of animica_hooks" if version is None else f"is at schema {version}"
    raise ConfigurationError(
        f"the database {found}, and {HEAD} is needed: run 'animica-hooks db upgrade'."
    )


def require_known(version: str | None) -> None:
    """Raise ``ConfigurationError`` for a version that neither suffices nor leads to ``HEAD``."""
    known = {path.name.split("_")[0] for path in (_folder() / "versions").glob("[0-9]*.py")}
    if version is not None and version not in known:
        raise ConfigurationError(
            f"the database is at schema {version}, which this animica_hooks does not know (it "
            f"knows up to {HEAD}): install the newer animica_hooks that upgraded it."
        )


def differences(connection: Connection) -> list[str]:
    """Say how the tables differ from what the code expects; an empty list where they agree.

    What a newer version has added is no difference.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from animica_hooks.store.tables import described

    expected = described(connection.dialect.name)
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "compare_type": True,
            "include_name": lambda name, kind, _: kind != "table" or name in expected.tables,
        },
    )
    found = compare_metadata(context, expected)
    if is_newer(current(connection)):
        found = [one for one in found if isinstance(one, list) or not one[0].startswith("remove_")]
    return [_in_words(difference) for difference in found]


def _in_words(difference: Any) -> str:
    """Return what Alembic found: https://alembic.sqlalchemy.org/en/latest/api/autogenerate.html."""
    if isinstance(difference, list):  # of one column
        _, _, table, column, *_ = difference[0]
        how = ", ".join(one[0].removeprefix("modify_") for one in difference)
        return f"the column {table}.{column} differs in its {how}"
    verb, _, kind = difference[0].partition("_")
    element = difference[-1]
    table = difference[2] if kind == "column" else getattr(element, "table", None)
    name = element.name if table is None else f"{table}.{element.name}"
    return f"the {kind} {name} is {'missing' if verb == 'add' else 'there, and not expected'}"


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _folder() -> Path:
    """The migrations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
