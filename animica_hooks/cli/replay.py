"""``animica-hooks replay``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from animica_hooks.cli import output
from animica_hooks.cli.apps import load_hooks
from animica_hooks.cli.inbox import NotFound, opened, require_database, run
from animica_hooks.cli.options import (
    confirm,
    database_option,
    json_option,
    since_option,
    until_option,
    yes_option,
)
from animica_hooks.core.job import State

if TYPE_CHECKING:
    from animica_hooks.admin import Admin
    from animica_hooks.hooks import Hooks
    from animica_hooks.store.replay import ReplayFilters
    from animica_hooks.store.views import DryRun, Replay, ReplayPlan


@click.command()
@click.option("--id", "ids", multiple=True, metavar="ID", help="Of this event, or several.")
@click.option("--type", "types", multiple=True, metavar="PATTERN", help="Of types: a.b, a.* or *.")
@since_option
@until_option
@click.option(
    "--state", "states", multiple=True, type=click.Choice([state.value for state in State]),
    help="Whose latest job is in this state; dead for dead letters.",
)  # fmt: skip
@click.option("--handler", "handlers", multiple=True, metavar="NAME", help="Only for this handler.")
@click.option("--limit", type=click.IntRange(1), help="Make at most so many jobs.")
@click.option("--all", "everything", is_flag=True, help="Without any filter: all events.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Jobs a second that become due."
)
@click.option("--keep-keys", is_flag=True, help="With the idempotency keys of the jobs repeated.")
@click.option("--plan", "plan_only", is_flag=True, help="Only say what would be replayed.")
@click.option(
    "--dry-run", is_flag=True, help="Run the handlers of --app, and roll back; see below."
)
@click.option("--force", is_flag=True, help="Dry-run handlers without session, too.")
@click.option("--app", metavar="APP", help="Only handlers of this app (module:attribute).")
@yes_option
@database_option
@json_option
def replay(
    *,
    ids: tuple[str, ...],
    types: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    states: tuple[str, ...],
    handlers: tuple[str, ...],
    limit: int | None,
    everything: bool,
    rate: float | None,
    keep_keys: bool,
    plan_only: bool,
    dry_run: bool,
    force: bool,
    app: str | None,
    yes: bool,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Make new jobs for stored events, in the order of their receipt.

    All filters that are given must hold. The plan is shown first. Jobs that are still to run are
    not repeated, and events whose payload was pruned or erased are left out. Where there is no
    event of an --id, nothing is replayed, and it exits with 1. The app's workers handle the new
    jobs, at once or when they are next started.

    A dry run calls the handlers of --app here and now, each in a transaction that is rolled back,
    and prints what they wrote. What they do beside their session happens all the same. It exits
    with 1 where a handler raised.
    """
    if dry_run and app is None:
        raise click.UsageError(
            "--dry-run runs handlers here: say which with --app module:attribute."
        )
    if force and not dry_run:
        raise click.UsageError("--force is for --dry-run.")
    if not any((everything, ids, types, since, until, states, handlers)):
        raise click.UsageError(
            "say what to replay: --id, --type, --since, --until, --state, --handler, or --all."
        )
    from animica_hooks.store.replay import ReplayFilters

    filters = ReplayFilters(
        ids=ids or None,
        types=types or None,
        since=since,
        until=until,
        states=states or None,
        handlers=handlers or None,
        limit=limit,
        all=everything,
    )
    hooks = None if app is None else load_hooks(app, database_url)
    if hooks is not None:
        database_url = hooks.settings.database_url
    plan = run(_plan(database_url, filters, hooks))
    if plan_only or not plan.count:
        _show_plan(plan, as_json=as_json)
        return
    if not as_json or not yes:
        _show_plan(plan, as_json=False, err=as_json)
    if dry_run:
        assert hooks is not None
        _show_runs(_dry_run(hooks, filters, force=force), as_json=as_json)
        return
    confirm(f"Replay {output.times(plan.count, 'job')}?", yes=yes)
    with output.progress("replaying") as on_progress:
        done = run(
            _replay(
                database_url=database_url,
                filters=filters,
                hooks=hooks,
                rate=rate,
                keep_keys=keep_keys,
                on_progress=on_progress,
            )
        )
    _show_replay(done, as_json=as_json)


async def _plan(
    database_url: str | None, filters: ReplayFilters, hooks: Hooks | None
) -> ReplayPlan:
    async with opened(database_url) as admin:
        if filters.ids:
            there = {event.id async for event in admin.events(ids=filters.ids)}
            if missing := [id for id in filters.ids if id not in there]:
                raise NotFound(f"there is no event {', '.join(map(repr, missing))}.")
        return await _confined(admin, hooks).plan_replay(filters)


async def _replay(
    *,
    database_url: str | None,
    filters: ReplayFilters,
    hooks: Hooks | None,
    rate: float | None,
    keep_keys: bool,
    on_progress: output.OnProgress,
) -> Replay:
    async with opened(database_url) as admin:
        return await _confined(admin, hooks).replay(
            filters, rate=rate, keep_keys=keep_keys, on_progress=on_progress
        )


def _confined(admin: Admin, hooks: Hooks | None) -> Admin:
    """Return an ``Admin`` that knows only an app's handlers, where there is an app."""
    from animica_hooks.admin import Admin

    if hooks is None:
        return admin
    return Admin(admin.store, [handler.name for handler in hooks.handlers()])


def _dry_run(hooks: Hooks, filters: ReplayFilters, *, force: bool) -> Replay:
    require_database(hooks.settings.database_url)
    with output.progress("running") as on_progress:
        return run(
            hooks.replay(
                ids=filters.ids,
                types=filters.types,
                since=filters.since,
                until=filters.until,
                states=filters.states,
                handlers=filters.handlers,
                limit=filters.limit,
                all=filters.all,
                dry_run=True,
                force=force,
                on_progress=on_progress,
            )
        )


def _show_plan(plan: ReplayPlan, *, as_json: bool, err: bool = False) -> None:
    if as_json:
        click.echo(output.as_json(plan))
        return
    click.echo(f"{output.times(plan.count, 'job')} to replay", err=err)
    fields: list[tuple[str, Any]] = [
        ("by type", plan.by_type),
        ("by handler", plan.by_handler),
        ("oldest", plan.oldest),
        ("newest", plan.newest),
        ("still to run", plan.skipped),
        ("payload gone", plan.without_body),
    ]
    for name, value in fields:
        if value:
            click.echo(f"  {name:<14} {output.cell(value)}", err=err)


def _show_replay(done: Replay, *, as_json: bool) -> None:
    if as_json:
        click.echo(output.as_json(done))
    else:
        click.echo(f"replay {done.id} made {output.times(done.created, 'job')}")


def _show_runs(done: Replay, *, as_json: bool) -> None:
    failed = [run for run in done.runs if run.error is not None]
    if as_json:
        click.echo(output.as_json(done))
    else:
        output.table(
            ("event", "handler", "seconds", "would write", "raised"),
            [(r.event_id, r.handler, r.seconds, _writes(r), r.error) for r in done.runs],
        )
        click.echo(f"{output.times(len(done.runs), 'run')}, all rolled back; {len(failed)} raised")
    if failed:
        raise click.exceptions.Exit(1)


def _writes(run: DryRun) -> str:
    return (
        ", ".join(f"{what} ({output.times(rows, 'row')})" for what, rows in run.writes) or "nothing"
    )
