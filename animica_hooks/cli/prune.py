"""``animica-hooks prune``: delete what is done with."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import click

from animica_hooks.cli import output
from animica_hooks.cli.apps import load_hooks
from animica_hooks.cli.inbox import opened, run
from animica_hooks.cli.options import (
    confirm,
    database_option,
    duration,
    json_option,
    yes_option,
)
from animica_hooks.core.retention import DAY_S, Retention

if TYPE_CHECKING:
    from animica_hooks.store.views import Pruned

_FIELDS = tuple(field.name for field in fields(Retention))


@click.command()
@click.option(
    "--bodies", type=duration, metavar="AGE", help="Payloads and headers; 30d is a month."
)
@click.option("--events", type=duration, metavar="AGE", help="Events, with all about them.")
@click.option("--dead", type=duration, metavar="AGE", help="Dead jobs; kept unless this is said.")
@click.option("--quarantine", type=duration, metavar="AGE", help="Deliveries in the quarantine.")
@click.option("--app", metavar="APP", help="Take the ages of this app (module:attribute).")
@click.option("--dry-run", is_flag=True, help="Only count.")
@yes_option
@database_option
@json_option
def prune(
    *,
    app: str | None,
    dry_run: bool,
    yes: bool,
    database_url: str | None,
    as_json: bool,
    **ages: float | None,
) -> None:
    """Delete what is done with and older than its age. This can not be undone.

    What would go is counted first. Ages that are not given are those of --app, else the defaults
    of Retention. Jobs that are still to run, and their events, are never deleted. Running apps
    prune by themselves; this is for those with retention=None, and for what can not wait.
    """
    retention: Retention | None = None
    if app is not None:
        hooks = load_hooks(app, database_url)
        database_url, retention = hooks.settings.database_url, hooks.settings.retention
    given = {name: age for name, age in ages.items() if age is not None}
    retention = replace(retention or Retention(), **given)
    planned = run(_prune(database_url, retention, dry_run=True))
    if dry_run or not planned.total:
        _show(planned, "to prune", as_json=as_json)
        return
    if not as_json or not yes:
        _show(planned, "to prune", as_json=False, err=as_json)
        for name in _FIELDS:
            age = getattr(retention, name)
            shown = "kept" if age is None else f"{age / DAY_S:g} days"
            click.echo(f"  {name:<14} {shown}", err=as_json)
    confirm("Delete these for good?", yes=yes)
    with output.progress("pruning") as on_progress:
        done = run(_prune(database_url, retention, on_progress=on_progress, planned=planned.total))
    _show(done, "pruned", as_json=as_json)


async def _prune(
    database_url: str | None,
    retention: Retention,
    *,
    dry_run: bool = False,
    on_progress: output.OnProgress = lambda done, planned: None,
    planned: int = 0,
) -> Pruned:
    async with opened(database_url) as admin:
        return await admin.prune(
            retention,
            dry_run=dry_run,
            on_progress=lambda done: on_progress(done.total, planned),
        )


def _show(pruned: Pruned, what: str, *, as_json: bool, err: bool = False) -> None:
    if as_json:
        click.echo(output.as_json(pruned))
        return
    counts = (
        output.times(pruned.bodies, "payload"),
        output.times(pruned.events, "event"),
        f"{pruned.quarantined} in the quarantine",
        output.times(pruned.replays, "record") + " of replays",
    )
    click.echo(f"{what}: {', '.join(counts)}", err=err)
