"""``animica-hooks handlers``: what the database knows of handlers, and stopping them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from animica_hooks.cli import output
from animica_hooks.cli.inbox import no_handler, opened, run
from animica_hooks.cli.options import confirm, database_option, json_option, yes_option

if TYPE_CHECKING:
    from animica_hooks.store.views import HandlerView


@click.group()
def handlers() -> None:
    """Look at handlers, pause them, and give up on those that are gone."""


@handlers.command("list")
@database_option
@json_option
def list_handlers(database_url: str | None, as_json: bool) -> None:
    """List the handlers that any process has had, with their jobs."""

    async def read() -> list[HandlerView]:
        async with opened(database_url) as admin:
            return await admin.handlers()

    found = run(read())
    if as_json:
        for handler in found:
            click.echo(output.as_json(handler))
    elif found:
        output.table(
            (
                "handler", "endpoint", "patterns", "last seen", "paused since", "waiting",
                "leased", "parked",
            ),
            [
                (
                    h.name, h.endpoint, " ".join(h.patterns), h.seen_at, h.paused_at, h.waiting,
                    h.leased, h.parked,
                )
                for h in found
            ],
        )  # fmt: skip
    else:
        click.echo("no handlers")


@handlers.command("pause")
@click.argument("name")
@database_option
@json_option
def pause(name: str, database_url: str | None, as_json: bool) -> None:
    """Begin no more jobs of the handler NAME, in any process, until it is resumed.

    What runs goes on, and events go on being received. A pause outlasts restarts and deploys.
    """

    async def work() -> bool:
        async with opened(database_url) as admin:
            return await admin.pause(name)

    _tell(name, run(work()), "paused", as_json=as_json)


@handlers.command("resume")
@click.argument("name")
@database_option
@json_option
def resume(name: str, database_url: str | None, as_json: bool) -> None:
    """Let the paused handler NAME go on."""

    async def work() -> bool:
        async with opened(database_url) as admin:
            return await admin.resume(name)

    _tell(name, run(work()), "resumed", as_json=as_json)


@handlers.command("remove")
@click.argument("name")
@yes_option
@database_option
@json_option
def remove(name: str, yes: bool, database_url: str | None, as_json: bool) -> None:
    """Cancel the jobs of the handler NAME that nobody runs, and forget it.

    Refused while a process that runs has it, or had it within the last minute: deploy without it
    first, or pause it. It is back when a process that has it starts. Renamed handlers need no
    removing: aliases= gives their jobs to the new name.
    """

    async def look() -> bool:
        async with opened(database_url) as admin:
            await admin.require_gone(name)
            return await admin.knows_handler(name)

    async def work() -> int | None:
        async with opened(database_url) as admin:
            await admin.require_gone(name)  # it may have come while somebody was asked
            return await admin.remove_handler(name)

    if not yes and not run(look()):
        raise no_handler(name)
    confirm(f"Cancel all waiting jobs of the handler {output.plain(name)}, and forget it?", yes=yes)
    cancelled = run(work())
    if cancelled is None:
        raise no_handler(name)
    if as_json:
        click.echo(output.as_json({"name": name, "removed": True, "cancelled": cancelled}))
    else:
        click.echo(f"handler {output.plain(name)} is removed; {cancelled} jobs are cancelled")


def _tell(name: str, done: bool, what: str, *, as_json: bool) -> None:
    if not done:
        raise no_handler(name)
    if as_json:
        click.echo(output.as_json({"name": name, what: True}))
    else:
        click.echo(f"handler {output.plain(name)} is {what}")
