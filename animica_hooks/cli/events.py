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
    confirm,
    database_option,
    json_option,
    limit_option,
    since_option,
    until_option,
    yes_option,
)
from animica_hooks.errors import MalformedEvent

if TYPE_CHECKING:
    from animica_hooks.core.event import Event
    from animica_hooks.store.views import Erased, EventView, JobView


@click.group()
def events() -> None:
    """Look at stored events, and erase their payloads."""


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
        raise _not_there(id)
    for view, event, jobs in found:
        if raw and not view.has_body:
            raise NotFound(f"the payload of event {id!r} is gone: it was pruned or erased.")
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
        "created": event.created if view.has_body else None,
        "received_at": view.received_at,
        "deliveries": view.deliveries,
        "conflicts": view.conflicts,
        "headers": dict(event.headers),
        "payload": _payload(event) if view.has_body else None,
        "has_body": view.has_body,
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
    if view.has_body:
        _show_content(event)
    else:
        click.echo("payload and headers are gone: pruned or erased")
    if not jobs:
        click.echo("no jobs: no handler takes this type, or none did when it came")
        return
    output.table(
        ("job", "handler", "state", "attempts", "reason"),
        [(job.id, job.handler, job.state, job.attempts, job.reason) for job in jobs],
    )


def _show_content(event: Event) -> None:
    click.echo("headers")
    for name, value in event.headers.items():
        click.echo(f"  {output.plain(name)}: {output.plain(value)}")
    click.echo("payload")
    payload = json.dumps(_payload(event), indent=2, ensure_ascii=False)
    for line in output.plain_lines(payload):
        click.echo(f"  {line}")


@events.command("erase")
@click.argument("id")
@click.option("--endpoint", metavar="NAME", help="Only where it was received there.")
@yes_option
@database_option
@json_option
def erase_event(
    *, id: str, endpoint: str | None, yes: bool, database_url: str | None, as_json: bool
) -> None:
    """Remove payload and headers of the event ID, and its failures. This can not be undone.

    Its digest stays, so that it is still known when it is delivered again. Its jobs that are not
    done are cancelled.
    """

    async def look() -> bool:
        async with opened(database_url) as admin:
            found = [view.endpoint async for view in admin.events(ids=[id])]
            return endpoint in found if endpoint is not None else bool(found)

    async def work() -> Erased:
        async with opened(database_url) as admin:
            return await admin.erase(id, endpoint=endpoint)

    if not yes and not run(look()):
        raise _not_there(id, endpoint)
    confirm(f"Erase the payload of {output.plain(id)} for good?", yes=yes)
    erased = run(work())
    if not erased.events:
        raise _not_there(id, endpoint)
    if as_json:
        click.echo(output.as_json(erased))
    else:
        click.echo(
            f"the payload of {output.plain(id)} is erased, and "
            f"{output.times(erased.cancelled, 'job')} cancelled"
        )


def _not_there(id: str, endpoint: str | None = None) -> NotFound:
    where = "" if endpoint is None else f" of the endpoint {endpoint!r}"
    return NotFound(f"there is no event {id!r}{where}.")
