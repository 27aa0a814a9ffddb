"""``animica-hooks serve``."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from animica_hooks.cli import output
from animica_hooks.cli.apps import hooks_in, load_app, use_database
from animica_hooks.cli.inbox import opened, run
from animica_hooks.cli.options import database_option, json_option
from animica_hooks.config import ENV_SECRET
from animica_hooks.core.event import Event
from animica_hooks.errors import AnimicaHooksError, ConfigurationError
from animica_hooks.hooks import Hooks
from animica_hooks.telemetry import logger

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from animica_hooks.cli.supervisor import Forked

_DATA_CHARS = 200
_PRINTS = "animica-hooks.serve"  # the handler, where there is no app


@click.command()
@click.argument("app", required=False)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--secret",
    multiple=True,
    metavar="WHSEC",
    help=f"Signing secret, without APP; several while one is rotated. Better: {ENV_SECRET}.",
)
@database_option
@json_option
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64),
    help="Processes that share the port, each of which receives and runs handlers.",
)  # fmt: skip
@click.option(
    "--proxy-headers",
    is_flag=True,
    help="Believe X-Forwarded-For and -Proto of the proxies in FORWARDED_ALLOW_IPS.",
)
@click.option(
    "--max-connections", default=1000, show_default=True, type=click.IntRange(1),
    help="Open at once, in each process; others are answered 503.",
)  # fmt: skip
@click.option(
    "--head-timeout", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True),
    help="Seconds in which a request's headers must arrive.",
)  # fmt: skip
@click.option(
    "--keep-alive", default=15, show_default=True, type=click.IntRange(1),
    help="Seconds that a connection may be idle.",
)  # fmt: skip
@click.option(
    "--grace", default=5, show_default=True, type=click.IntRange(0),
    help="Seconds that requests under way have to end at a shutdown; handlers have the app's "
    "shutdown= after that.",
)  # fmt: skip
def serve(
    *,
    app: str | None,
    host: str,
    port: int,
    secret: tuple[str, ...],
    database_url: str | None,
    as_json: bool,
    workers: int,
    proxy_headers: bool,
    max_connections: int,
    head_timeout: float,
    keep_alive: int,
    grace: int,
) -> None:
    """Serve APP (module:attribute) with a hardened uvicorn.

    APP is a Hooks, or an ASGI app that mounts one. Without APP, events are received, stored and
    printed, one on a line.
    """
    from animica_hooks.cli import server
    from animica_hooks.cli.connection import Limits

    if secret and app is not None:
        raise click.UsageError("--secret is for serving without APP, which has its own.")
    fork = None
    if workers > 1:
        fork = _forked(workers, host, port)
    if app is None:
        served: Any = _printing_app(secret, database_url, as_json=as_json)
    else:
        served = load_app(app)
    found = hooks_in(served)
    _give_database(app, found, database_url)
    configure_logging()
    sockets = fork.sockets if fork else server.bind(host, port)

    def drain() -> None:
        for hooks in found:
            hooks._begin_draining()

    server.serve(
        served,
        sockets,
        limits=Limits(
            connections=max_connections,
            head_deadline=head_timeout,
            keep_alive=keep_alive,
            grace=grace,
        ),
        proxy_headers=proxy_headers,
        on_start=lambda: _tell_started(fork, sockets[0], None if found else app),
        on_stop=drain,
    )
    if app is None:
        run(_forget_printing(database_url))


def _give_database(app: str | None, found: Sequence[Hooks], database_url: str | None) -> None:
    """Make an app use another database, where one is given."""
    if not found and database_url is not None:
        raise ConfigurationError(
            f"{app} has no Hooks that can be found, and --database-url is for those: give the URL "
            "to Hooks(database_url=...) or in ANIMICA_HOOKS_DATABASE_URL."
        )
    for hooks in found:
        use_database(hooks, database_url)


def _tell_started(fork: Forked | None, bound: socket.socket, bare: str | None) -> None:
    """Tell who started it, and of an app in which no Hooks are; it may wrap some unseen."""
    if fork:
        fork.started()
    else:
        click.echo(f"receiving at {_url(bound)} (stop with Ctrl+C)", err=True)
    if bare is not None:
        click.echo(f"warning: {bare} has no Hooks that can be found", err=True)


async def _forget_printing(database_url: str | None) -> None:
    """Leave no jobs for a handler that only this command has to the apps that come after it."""
    with suppress(AnimicaHooksError):  # it has ended well, whatever has become of its database
        async with opened(database_url) as admin:
            await admin.remove_handler(_PRINTS)


def _forked(workers: int, host: str, port: int) -> Forked:
    """Return in each of several processes; in this one, which looks after them, not at all."""
    from animica_hooks.cli import server
    from animica_hooks.cli.supervisor import Supervisor

    keeping, listen = server.bind_several(host, port)

    def say_where() -> None:
        where = f"{_url(keeping[0])} in {workers} processes"
        click.echo(f"receiving at {where} (stop with Ctrl+C)", err=True)

    fork = Supervisor(workers, listen, on_start=say_where).run()
    for one in keeping:
        one.close()
    return fork


def configure_logging() -> None:
    """Log to stderr, unless the app has said how to log."""
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logger.setLevel(logging.INFO)


def _printing_app(secret: tuple[str, ...], database_url: str | None, *, as_json: bool) -> Hooks:
    hooks = Hooks(signing_secret=list(secret) or None, database_url=database_url, routers=[])
    if not hooks.settings.secrets:
        raise ConfigurationError(f"there is no signing secret: set {ENV_SECRET}, or pass --secret.")

    @hooks.on("*", name=_PRINTS)
    async def print_event(event: Event) -> None:
        line = output.as_json(_fields(event)) if as_json else _line(event)
        print(line, flush=True)  # noqa: T201 - what the command is for

    return hooks


def _fields(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "created": event.created,
        "received_at": event.received_at,
        "data": event.data,
    }


def _line(event: Event) -> str:
    data = json.dumps(event.data)
    if len(data) > _DATA_CHARS:
        data = data[: _DATA_CHARS - 3] + "..."
    time = datetime.now().astimezone().strftime("%H:%M:%S")
    return output.plain(f"{time} {event.id} {event.type} {data}")


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
