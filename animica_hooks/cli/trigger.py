"""``animica-hooks trigger``."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import click

from animica_hooks.cli import output, samples
from animica_hooks.cli.options import json_option
from animica_hooks.cli.sender import Answered, Sender
from animica_hooks.config import ENV_SECRET, find_secrets
from animica_hooks.core.signature import sign
from animica_hooks.errors import ConfigurationError

_SHOWN = 20  # deliveries; of more only the unexpected ones and a summary are printed


@click.command()
@click.argument("type")
@click.option(
    "--data",
    metavar="JSON|@FILE|-",
    help="The event's data; made up for types that are known, else {}.",
)
@click.option("--to", default="http://127.0.0.1:8000/", show_default=True, metavar="URL")
@click.option("--secret", metavar="WHSEC", help=f"Signing secret. Better: {ENV_SECRET}.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="Events.")
@click.option("--duplicate", is_flag=True, help="Deliver each event twice.")
@click.option("--tamper", is_flag=True, help="Change the body after signing; expects a 400.")
@click.option("--id", metavar="ID", help="The event's id; made up otherwise.")
@json_option
def trigger(
    *,
    type: str,
    data: str | None,
    to: str,
    secret: str | None,
    count: int,
    duplicate: bool,
    tamper: bool,
    id: str | None,
    as_json: bool,
) -> None:
    """Deliver signed events of TYPE to a receiver.

    Exits with 0 only if each delivery was answered as expected: 2xx, or 400 with --tamper.
    """
    if id is not None and count > 1:
        raise click.UsageError("--id is for one event: leave out --count, or say --duplicate.")
    key = _secret(secret)
    given = None if data is None else _read_data(data)
    answers: list[Answered] = []
    unexpected = 0
    with Sender(to) as sender:
        for event_id, body in _events(type, given, count, id, duplicate=duplicate):
            signature = sign(body, key, timestamp=int(time.time()))
            answered = sender.deliver(body + b" " if tamper else body, signature)
            answers.append(answered)
            expected = answered.status == 400 if tamper else 200 <= answered.status < 300
            unexpected += not expected
            if as_json:
                click.echo(output.as_json(_fields(event_id, type, answered, expected)))
            elif count <= _SHOWN or not expected:
                click.echo(_line(event_id, type, answered, expected))
    if len(answers) > 1 and not as_json:
        click.echo(_summary(answers, unexpected))
    if unexpected:
        raise click.exceptions.Exit(1)


def _secret(given: str | None) -> bytes:
    found = find_secrets(given)
    if not found:
        raise ConfigurationError(
            f"there is no signing secret: set {ENV_SECRET} as for the receiver, or pass --secret."
        )
    return found[0]


def _read_data(data: str) -> Any:
    try:
        if data == "-":
            data = sys.stdin.read()
        elif data.startswith("@"):
            data = Path(data[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"can not be read: {error}.", param_hint="--data") from None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"is not JSON: {error}.", param_hint="--data") from None


def _events(
    type: str, given: Any, count: int, id: str | None, *, duplicate: bool
) -> Iterator[tuple[str, bytes]]:
    random = SystemRandom()
    for _ in range(count):
        event_id = id if id is not None else f"evt_{os.urandom(12).hex()}"
        data = samples.make_data(type, random) if given is None else given
        body = samples.make_event(type, data, random, id=event_id)
        yield event_id, body
        if duplicate:
            yield event_id, body


def _fields(id: str, type: str, answered: Answered, expected: bool) -> dict[str, Any]:
    return {
        "id": id,
        "type": type,
        "status": answered.status,
        "seconds": round(answered.seconds, 6),
        "as_expected": expected,
    }


def _line(id: str, type: str, answered: Answered, expected: bool) -> str:
    line = f"{id} {type}: {answered.status} in {answered.seconds * 1000:.1f} ms"
    return output.plain(line if expected else f"{line}, not as expected")


def _summary(answers: list[Answered], unexpected: int) -> str:
    p50, p99 = percentiles([answered.seconds for answered in answers])
    return (
        f"{len(answers)} deliveries, {len(answers) - unexpected} answered as expected; "
        f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"
    )


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return the 50th and the 99th percentile of two or more durations."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[98]
