"""``animica-hooks worker``."""

from __future__ import annotations

import asyncio
import signal

import click

from animica_hooks.cli import output
from animica_hooks.cli.apps import load_hooks
from animica_hooks.cli.options import database_option
from animica_hooks.cli.serve import configure_logging
from animica_hooks.hooks import Hooks


@click.command()
@click.argument("app")
@database_option
def worker(app: str, database_url: str | None) -> None:
    """Run the handlers of APP (module:attribute), without HTTP.

    At SIGTERM, SIGINT or SIGHUP no new job is begun; those that run have the app's shutdown= to
    end, and are given back otherwise.
    """
    hooks = load_hooks(app, database_url)
    configure_logging()
    asyncio.run(_work(hooks))


async def _work(hooks: Hooks) -> None:
    loop = asyncio.get_running_loop()
    working = asyncio.create_task(hooks.worker())
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:  # a second cancellation would break off the draining
            stopping = True
            working.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(number, stop)
    handlers = output.times(len(hooks.handlers()), "handler")
    click.echo(f"working for {handlers} (stop with Ctrl+C)", err=True)
    try:
        await working
    except asyncio.CancelledError:
        pass
