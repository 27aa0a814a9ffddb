"""``animica-hooks jobs`` and ``dead``: what handlers have to do, and what became of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
import msgspec

from animica_hooks.cli import output
from animica_hooks.cli.inbox import NotFound, no_handler, opened, run
from animica_hooks.cli.options import database_option, json_option, limit_option
from animica_hooks.core.job import State
from animica_hooks.core.routing import check_pattern
from animica_hooks.errors import ReplayRefused

if TYPE_CHECKING:
    from animica_hooks.admin import Admin
    from animica_hooks.store.views import FailureView, JobView


@click.group()
def jobs() -> None:
    """Look at jobs, and try them again."""


@click.group()
def dead() -> None:
    """Look at dead letters: jobs that failed too often."""


@jobs.command("list")
@click.option(
    "--state", multiple=True, type=click.Choice([state.value for state in State]),
    help="In this state, or one of several.",
)  # fmt: skip
@click.option("--handler", metavar="NAME", help="Of this handler.")
@click.option("--event", "event_id", metavar="ID", help="Of this event.")
@click.option("--type", metavar="PATTERN", help="Of events of a type: a.b, a.* or *.")
@limit_option
@database_option
@json_option
def list_jobs(
    *,
    state: tuple[str, ...],
    handler: str | None,
    event_id: str | None,
    type: str | None,
    limit: int,
    database_url: str | None,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    _list(
        "no jobs",
        as_json=as_json,
        database_url=database_url,
        states=state or None,
        handler=handler,
        event_id=event_id,
        type=type,
        limit=limit,
    )


@dead.command("list")
@click.option("--handler", metavar="NAME", help="Of this handler.")
@click.option("--type", metavar="PATTERN", help="Of events of a type: a.b, a.* or *.")
@limit_option
@database_option
@json_option
def list_dead(
    handler: str | None, type: str | None, limit: int, database_url: str | None, as_json: bool
) -> None:
    """List dead letters, newest first.

    'animica-hooks replay --state dead' handles them again, in order. Where jobs of the same key
    are parked behind one, their number is shown; 'animica-hooks jobs unpark' lets them go on.
    """
    _list(
        "no dead letters",
        as_json=as_json,
        database_url=database_url,
        states=[State.DEAD.value],
        handler=handler,
        type=type,
        limit=limit,
    )


def _list(
    none: str, *, as_json: bool, database_url: str | None, type: str | None, **filters: Any
) -> None:
    if type is not None:
        check_pattern(type)

    async def read() -> list[JobView]:
        async with opened(database_url) as admin:
            return [job async for job in admin.jobs(type=type, **filters)]

    found = run(read())
    if as_json:
        for job in found:
            click.echo(output.as_json(job))
    elif found:
        output.table(
            (
                "job", "state", "handler", "key", "parked", "event", "type", "attempts", "due",
                "reason",
            ),
            [
                (
                    j.id, j.state, j.handler, j.key, j.parked or None, j.event_id, j.event_type,
                    j.attempts, j.due_at, j.reason,
                )
                for j in found
            ],
        )  # fmt: skip
    else:
        click.echo(none)


@jobs.command("show")
@click.argument("id", type=int)
@database_option
@json_option
def show_job(id: int, database_url: str | None, as_json: bool) -> None:
    """Show the job ID and what its failed attempts left behind."""

    async def read() -> tuple[JobView, list[FailureView]] | None:
        async with opened(database_url) as admin:
            found = [job async for job in admin.jobs(ids=[id])]
            return (found[0], await admin.failures(id)) if found else None

    found = run(read())
    if found is None:
        raise NotFound(f"there is no job {id}.")
    job, failures = found
    if as_json:
        click.echo(output.as_json({**msgspec.to_builtins(job), "failures": failures}))
        return
    output.show(
        f"job {job.id} of {job.handler}: {job.state}",
        [
            ("event", f"{job.event_id} {job.event_type}"),
            ("endpoint", job.endpoint),
            ("key", job.key),
            ("parked", job.parked or None),
            ("attempts", f"{job.attempts}, {job.failed} of them failed"),
            ("created", job.created_at),
            ("due", job.due_at),
            ("finished", job.finished_at),
            ("leased by", job.leased_by),
            ("reason", job.reason),
            ("replay", job.replay_id),
            ("repeats job", job.replayed_from),
        ],
    )
    for failure in failures:
        click.echo(f"attempt {failure.attempt}, {output.cell(failure.at)}")
        for line in output.plain_lines(failure.traceback.rstrip("\n")):
            click.echo(f"  {line}")


@jobs.command("retry")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=int)
@database_option
@json_option
def retry_jobs(ids: tuple[int, ...], database_url: str | None, as_json: bool) -> None:
    """Make dead or cancelled jobs available again, with all their attempts before them.

    Jobs that wait for their next attempt are due now, and keep their count of attempts. Exits
    with 1 where one is neither, and says what to do instead.
    """

    async def retry() -> dict[int, str | None]:
        async with opened(database_url) as admin:
            return {id: await _retry(admin, id) for id in ids}

    problems = run(retry())
    for id, problem in problems.items():
        if as_json:
            click.echo(output.as_json({"id": id, "retried": problem is None}))
        elif problem is None:
            click.echo(f"job {id} is tried again")
        else:
            click.echo(f"error: {output.plain(problem)}", err=True)
    if any(problems.values()):
        raise click.exceptions.Exit(1)


async def _retry(admin: Admin, id: int) -> str | None:
    """Retry a job; return why that can not be, or None."""
    try:
        if await admin.retry_job(id):
            return None
    except ReplayRefused as error:
        return str(error)
    found = [job async for job in admin.jobs(ids=[id])]
    return _instead(found[0]) if found else f"there is no job {id}."


def _instead(job: JobView) -> str:
    """Say what there is to do with a job that can not be retried."""
    match job.state:
        case State.LEASED:
            return f"job {job.id} is running: should it fail, it is tried again by itself."
        case State.SUCCEEDED:
            which = f"--id {shlex.quote(job.event_id)} --handler {shlex.quote(job.handler)}"
            return f"job {job.id} has succeeded: 'animica-hooks replay {which}' repeats it."
        case State.PARKED:
            return (
                f"job {job.id} is parked behind a dead one of its key: "
                f"'animica-hooks jobs unpark {job.id}' lets it go on."
            )
        case State.AVAILABLE if job.due_at is None:
            return (
                f"job {job.id} waits for those of its key before it: retry the first of them; "
                f"where that is dead, 'animica-hooks jobs unpark {job.id}' goes on without it."
            )
        case _:
            return f"job {job.id} has just changed, and is {job.state}: try it again."


@jobs.command("unpark")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=int)
@click.option("--handler", metavar="NAME", help="Only of this handler.")
@click.option("--key", metavar="KEY", help="Only of this key.")
@database_option
@json_option
def unpark(
    ids: tuple[int, ...],
    handler: str | None,
    key: str | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Let jobs go on that a dead one of their key has parked or blocked, in order.

    IDs are of any jobs of the keys that are meant, the dead ones or those behind them. Without
    IDs, handler and key all are.
    """

    async def work() -> int:
        async with opened(database_url) as admin:
            if handler is not None and not await admin.knows_handler(handler):
                raise no_handler(handler)
            return await admin.unpark(handler=handler, key=key, ids=ids or None)

    went_on = run(work())
    if as_json:
        click.echo(output.as_json({"unparked": went_on}))
    else:
        click.echo(f"unparked {output.times(went_on, 'job')}")
