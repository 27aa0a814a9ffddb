"""``animica-hooks db`` and ``stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from animica_hooks.cli import output
from animica_hooks.cli.inbox import opened, require_database, run, store_of
from animica_hooks.cli.options import database_option, json_option
from animica_hooks.errors import ConfigurationError

if TYPE_CHECKING:
    from animica_hooks.store.views import Stats


@click.group()
def db() -> None:
    """Make the database's tables, and check them."""


@db.command()
@database_option
@json_option
def upgrade(database_url: str | None, as_json: bool) -> None:
    """Bring the schema up to date; makes an SQLite file that is not there."""

    async def work() -> tuple[str | None, str | None]:
        async with store_of(database_url) as store:
            before = await store.version()
            await store.open(migrate=True)
            return before, await store.version()

    before, after = run(work())
    if as_json:
        click.echo(output.as_json({"from": before, "to": after}))
    elif before == after:
        click.echo(f"the database is at schema {after} already{_if_newer(after)}")
    else:
        click.echo(f"the database went from schema {before or '(none)'} to {after}")


@db.command()
@database_option
@json_option
def current(database_url: str | None, as_json: bool) -> None:
    """Say which schema the database is at; exits with 1 unless this version can work with it."""
    from animica_hooks.store.schema import HEAD, suffices

    async def read() -> str | None:
        async with store_of(database_url) as store:
            return await store.version()

    require_database(database_url)
    version = run(read())
    if as_json:
        click.echo(output.as_json({"current": version, "newest": HEAD}))
    else:
        note = _if_newer(version) if suffices(version) else f"; {HEAD} is the newest"
        click.echo(f"{version or 'no tables of animica_hooks'}{note}")
    if not suffices(version):
        raise click.exceptions.Exit(1)


@db.command()
@database_option
@json_option
def check(database_url: str | None, as_json: bool) -> None:
    """Compare the tables with what this version expects; exits with 1 where they differ.

    Of a newer schema, what it has added is no difference.
    """
    from animica_hooks.store.schema import HEAD, differences, require_enough, suffices

    async def read() -> tuple[str | None, list[str]]:
        async with store_of(database_url) as store:
            version = await store.version()
            async with store.read() as connection:
                return version, await connection.run_sync(differences)

    require_database(database_url)
    version, differing = run(read())
    enough = suffices(version)
    fine = enough and not differing
    if as_json:
        found = {"current": version, "newest": HEAD, "differences": differing, "ok": fine}
        click.echo(output.as_json(found))
    elif fine:
        click.echo(f"the tables are those of schema {version}{_if_newer(version)}")
    elif not enough:
        try:
            require_enough(version)
        except ConfigurationError as error:
            click.echo(f"error: {output.plain(error)}", err=True)
    else:
        for difference in differing:
            click.echo(f"error: {output.plain(difference)}", err=True)
    if not fine:
        raise click.exceptions.Exit(1)


def _if_newer(version: str | None) -> str:
    """Return what to add to a version that a newer package has made, and this one goes on with."""
    from animica_hooks.store.schema import HEAD, is_newer

    if not is_newer(version):
        return ""
    return f": newer than {HEAD}, which this version knows, and it only adds to that"


@click.command()
@database_option
@json_option
def stats(database_url: str | None, as_json: bool) -> None:
    """Count what waits and what has ended badly."""

    async def read() -> Stats:
        async with opened(database_url) as admin:
            return await admin.stats()

    found = run(read())
    counts = {
        "available": found.available,
        "leased": found.leased,
        "parked": found.parked,
        "dead": found.dead,
        "quarantined": found.quarantined,
    }
    if as_json:
        click.echo(output.as_json(counts))
    else:
        output.show("jobs, and deliveries in the quarantine", counts.items())
