"""``animica-hooks quarantine``: signed deliveries that are not usable as events."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec

from animica_hooks.cli import output
from animica_hooks.cli.inbox import NotFound, opened, run
from animica_hooks.cli.options import (
    confirm,
    database_option,
    json_option,
    limit_option,
    yes_option,
)
from animica_hooks.errors import MalformedEvent

if TYPE_CHECKING:
    from animica_hooks.store.records import Receipt
    from animica_hooks.store.views import QuarantineView

_SHOWN_BYTES = 20_000


@click.group()
def quarantine() -> None:
    """Look at signed deliveries that were not usable, and let them out."""


@quarantine.command("list")
@limit_option
@database_option
@json_option
def list_quarantined(limit: int, database_url: str | None, as_json: bool) -> None:
    """List them, newest first."""

    async def read() -> list[QuarantineView]:
        async with opened(database_url) as admin:
            return [held async for held in admin.quarantined(limit=limit)]

    found = run(read())
    if as_json:
        for held in found:
            click.echo(output.as_json(held))
    elif found:
        output.table(
            ("id", "received", "endpoint", "why", "bytes", "deliveries"),
            [(q.id, q.received_at, q.endpoint, q.reason, q.size, q.deliveries) for q in found],
        )
    else:
        click.echo("the quarantine is empty")


@quarantine.command("show")
@click.argument("id", type=int)
@click.option("--raw", is_flag=True, help="Write the body, byte by byte as it was signed.")
@database_option
@json_option
def show_quarantined(id: int, raw: bool, database_url: str | None, as_json: bool) -> None:
    """Show the delivery ID of the quarantine."""

    async def read() -> tuple[QuarantineView, bytes, Mapping[str, str]] | None:
        async with opened(database_url) as admin:
            views = [view async for view in admin.quarantined(ids=[id])]
            stored = await admin.quarantined_content(id)
            return (views[0], *stored) if views and stored else None

    found = run(read())
    if found is None:
        raise _not_there(id)
    held, body, headers = found
    text = body.decode(errors="backslashreplace")
    if raw:
        sys.stdout.buffer.write(body)
        return
    if as_json:
        fields: dict[str, Any] = msgspec.to_builtins(held)
        click.echo(output.as_json({**fields, "headers": dict(headers), "body": text}))
        return
    output.show(
        f"quarantined delivery {held.id}",
        [
            ("why", held.reason),
            ("endpoint", held.endpoint),
            ("received", held.received_at),
            ("deliveries", held.deliveries),
            ("sha256", held.sha256),
        ],
    )
    click.echo("headers")
    for name, value in headers.items():
        click.echo(f"  {output.plain(name)}: {output.plain(value)}")
    click.echo(f"body, {held.size} bytes")
    for line in output.plain_lines(text[:_SHOWN_BYTES]):
        click.echo(f"  {line}")
    if len(text) > _SHOWN_BYTES:
        click.echo("  ... (all of it: --raw)")


@quarantine.command("release")
@click.argument("id", type=int)
@click.option("--id", "event_id", metavar="ID", help="The event's id, where the body has none.")
@click.option("--type", metavar="TYPE", help="The event's type, where the body has none.")
@database_option
@json_option
def release(
    id: int, event_id: str | None, type: str | None, database_url: str | None, as_json: bool
) -> None:
    """Store the delivery ID as an event, for its handlers to run."""

    async def work() -> Receipt | None:
        async with opened(database_url) as admin:
            try:
                return await admin.release(id, event_id=event_id, type=type)
            except MalformedEvent as error:
                raise MalformedEvent(
                    f"delivery {id} is not usable: {error}. Give what is missing with --id and "
                    "--type."
                ) from None

    receipt = run(work())
    if receipt is None:
        raise _not_there(id)
    if as_json:
        click.echo(output.as_json({"id": id, "stored": receipt}))
        return
    stored = "a new event" if receipt == "new" else "an event that was there already"
    click.echo(f"quarantined delivery {id} is {stored} now")


@quarantine.command("discard")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=int)
@yes_option
@database_option
@json_option
def discard(ids: tuple[int, ...], yes: bool, database_url: str | None, as_json: bool) -> None:
    """Delete deliveries from the quarantine. This can not be undone."""

    async def look() -> set[int]:
        async with opened(database_url) as admin:
            return {held.id async for held in admin.quarantined(ids=ids)}

    async def work() -> dict[int, bool]:
        async with opened(database_url) as admin:
            return {id: await admin.discard(id) for id in ids}

    if not yes and (missing := sorted({*ids} - run(look()))):
        raise _not_there(missing[0])
    what = f"{len(ids)} deliveries" if len(ids) > 1 else f"delivery {ids[0]}"
    confirm(f"Delete {what} from the quarantine for good?", yes=yes)
    discarded = run(work())
    for id, done in discarded.items():
        if as_json:
            click.echo(output.as_json({"id": id, "discarded": done}))
        elif done:
            click.echo(f"delivery {id} is deleted")
        else:
            click.echo(f"error: {_not_there(id)}", err=True)
    if not all(discarded.values()):
        raise click.exceptions.Exit(1)


def _not_there(id: int) -> NotFound:
    return NotFound(f"there is no delivery {id} in the quarantine.")
