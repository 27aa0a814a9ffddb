"""The command line ``animica-hooks``: one file per group of commands.

Each imports what takes long (uvicorn, SQLAlchemy, rich) only when it runs, so that ``--help`` does
not wait for it.
"""

from __future__ import annotations

from typing import Any

import click

from animica_hooks.cli import (
    database,
    demo,
    events,
    handlers,
    jobs,
    prune,
    quarantine,
    replay,
    serve,
    trigger,
    worker,
)
from animica_hooks.cli.output import plain
from animica_hooks.errors import AnimicaHooksError, ConfigurationError, ReplayRefused

EXIT_CODES = """\b
Exit codes:
  0  done
  1  failed, not found, or not answered as expected
  2  wrong use or wrong configuration

\b
Databases: --database-url, else ANIMICA_HOOKS_DATABASE_URL, else sqlite:///animica-hooks.db.
Programs:  --json prints one JSON document; lists print one JSON object on each line.
"""


class _Failed(click.ClickException):
    """An error of ours, told in one line."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {plain(self.message)}", file=file, err=True)


class _WrongUse(_Failed):
    exit_code = 2


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AnimicaHooksError as error:
            wrong_use = isinstance(error, ConfigurationError | ReplayRefused)
            raise (_WrongUse if wrong_use else _Failed)(str(error)) from error


@click.group(cls=_Commands, epilog=EXIT_CODES, context_settings={"max_content_width": 100})
@click.version_option(package_name="animica-hooks", message="%(prog)s %(version)s")
def cli() -> None:
    """Receive webhooks durably, and look after what was received."""


for command in (
    serve.serve,
    worker.worker,
    trigger.trigger,
    events.events,
    jobs.jobs,
    jobs.dead,
    handlers.handlers,
    replay.replay,
    quarantine.quarantine,
    prune.prune,
    database.stats,
    database.db,
    demo.demo,
):
    cli.add_command(command)


def main() -> None:
    """Run the command that the arguments name."""
    cli(prog_name="animica-hooks")
