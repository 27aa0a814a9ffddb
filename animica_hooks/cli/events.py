"""``animica-hooks events``: what has been received."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from animica_hooks.cli import output
from animica_hooks.cli.inbox import NotFound, opened, run
from animica_hooks.cli.options import (
    database_option,
    json_option,
    limit_option,
    since_option,
    until_option,
)
from animica_hooks.errors import MalformedEvent

if TYPE_CHECKING:
    from animica_hooks.core.event import Event
    from animica_hooks.store.views import EventView, JobView


@click.group()
def events() -> None:
    """Look at stored events."""


@events.command("list")
@click.option("--type", metavar="PATTERN", help="Of a type: a.b, a.* or *.")
@since_option
@until_option
@limit_option
@database_option
@json_option
def list_events(
    *,
    type: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    database_url: str | None,
    as_json: bool,
) -> None:
    """List events, newest first."""
    from animica_hooks.core.routing import check_pattern

    if type is not None:
        check_pattern(type)

    async def read() -> list[EventView]:
        async with opened(database_url) as admin:
            found = admin.events(type=type, since=since, until=until, limit=limit)
            return [event async for event in found]

    found = run(read())
    if as_json:
        for event in found:
            click.echo(output.as_json(event))
    elif found:
        output.table(
            ("received", "id", "type", "endpoint", "deliveries", "jobs"),
            [(e.received_at, e.id, e.type, e.endpoint, e.deliveries, e.jobs) for e in found],
        )
    else:
        click.echo("no events")


@events.command("show")
@click.argument("id")
@click.option("--raw", is_flag=True, help="Write the body, byte by byte as it was signed.")
@database_option
@json_option
def show_event(*, id: str, raw: bool, database_url: str | None, as_json: bool) -> None:
    """Show the event ID: its payload, its headers and its jobs."""

    async def read() -> list[tuple[EventView, Event, list[JobView]]]:
        async with opened(database_url) as admin:
            views = [view async for view in admin.events(ids=[id])]
            jobs = [job async for job in admin.jobs(event_id=id)]
            return [
                (
                    view,
                    await admin.event(view.seq),
                    [job for job in jobs if job.endpoint == view.endpoint],
                )
                for view in views
            ]

    found = run(read())
    if not found:
        raise NotFound(f"there is no event {id!r}.")
    for view, event, jobs in found:
        if raw:
            sys.stdout.buffer.write(event.body)
        elif as_json:
            click.echo(output.as_json(_fields(view, event, jobs)))
        else:
            _show(view, event, jobs)


def _fields(view: EventView, event: Event, jobs: list[JobView]) -> dict[str, Any]:
    return {
        "id": view.id,
        "type": view.type,
        "endpoint": view.endpoint,
        "created": event.created,
        "received_at": view.received_at,
        "deliveries": view.deliveries,
        "conflicts": view.conflicts,
        "headers": dict(event.headers),
        "payload": _payload(event),
        "jobs": jobs,
    }


def _payload(event: Event) -> Any:
    """Return the payload; the body as text where it is none, as after a release."""
    try:
        return event.payload
    except MalformedEvent:
        return event.body.decode(errors="backslashreplace")


def _show(view: EventView, event: Event, jobs: list[JobView]) -> None:
    again = f"{view.deliveries}" + (f" ({view.conflicts} conflicting)" if view.conflicts else "")
    output.show(
        f"{view.id} {view.type}",
        [
            ("endpoint", view.endpoint),
            ("received", view.received_at),
            ("deliveries", again),
        ],
    )
    click.echo("headers")
    for name, value in event.headers.items():
        click.echo(f"  {output.plain(name)}: {output.plain(value)}")
    click.echo("payload")
    payload = json.dumps(_payload(event), indent=2, ensure_ascii=False)
    for line in output.plain_lines(payload):
        click.echo(f"  {line}")
    if not jobs:
        click.echo("no jobs: no handler takes this type, or none did when it came")
        return
    output.table(
        ("job", "handler", "state", "attempts", "reason"),
        [(job.id, job.handler, job.state, job.attempts, job.reason) for job in jobs],
    )
