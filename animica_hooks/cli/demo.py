"""``animica-hooks demo``: the main job on real input, and what it came to.

A real server in a process of its own receives real HTTP into a database in a temporary directory.
What the table says is counted in that database, with plain SQL, and held against what was sent.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import click

from animica_hooks.cli import output, samples
from animica_hooks.cli.inbox import opened, run
from animica_hooks.cli.options import json_option
from animica_hooks.cli.sender import Sender
from animica_hooks.cli.trigger import percentiles
from animica_hooks.config import ENV_DATABASE_URL, ENV_SECRET
from animica_hooks.core.signature import sign
from animica_hooks.errors import AnimicaHooksError

T = TypeVar("T")

CONNECTIONS = 16
EVENTS = {
    "payment.succeeded": 640,
    "subscription.renewed": 200,  # no handler takes these: they are stored all the same
    "invoice.paid": 80,
    "customer.deleted": 30,
}
DUPLICATES = 50  # with the events, 1,000 signed deliveries
REFUSED_OF_EACH_KIND = 10
# What each kind of delivery is to be answered.
EXPECTED = {
    "event": 204,
    "duplicate": 204,
    "unusable": 204,  # signed, so that it is kept, in the quarantine
    "tampered": 400,
    "stale": 400,
    "malformed": 400,
}
PATIENCE_S = 60.0
_STALE_S = 3600

_UNFINISHED = "SELECT count(*) FROM hooks_jobs WHERE state IN ('available', 'leased')"
_DEAD = "SELECT count(*) FROM hooks_jobs WHERE state = 'dead'"
_REPLAYED = """
    SELECT count(*) FROM hooks_jobs AS new JOIN hooks_jobs AS old ON old.id = new.replayed_from
    WHERE old.state = 'dead' AND new.state = 'succeeded'
"""
_MAILED = """
    SELECT count(*) FROM hooks_jobs JOIN hooks_handlers ON hooks_handlers.id = handler_id
    WHERE name = 'mail_receipt' AND state = 'succeeded' AND attempts = 3
"""
_UNHANDLED = """
    SELECT count(*) FROM hooks_events
    WHERE NOT EXISTS (SELECT 1 FROM hooks_jobs WHERE event_seq = seq)
"""
_DUPLICATES = "SELECT sum(count) FROM hooks_redeliveries"
_QUARANTINED = "SELECT count(*) FROM hooks_quarantine"
_LEDGER = "CREATE TABLE shop_ledger (id INTEGER PRIMARY KEY, payment, amount, currency)"
_BOOKED = "SELECT count(*) FROM shop_ledger"
_AMOUNTS = "SELECT sum(amount) FROM shop_ledger"
_CRM_URL = "SHOP_CRM_URL"  # which the app wants set


class DemoFailed(AnimicaHooksError):
    """The demo could not show what it is to show."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A body to deliver, in one of the ways of ``EXPECTED``."""

    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was sent, and what was found of it."""

    what: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What the deliveries were answered: how often each kind each status, and how fast."""

    statuses: Counter[tuple[str, int]]
    seconds: float
    p50: float
    p99: float


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """Receive 1,000 deliveries over HTTP; retry, bury and replay; check it all. Takes seconds.

    Exits with 1 where the database does not hold exactly what was sent.
    """
    say: Callable[[str], None] = (lambda line: None) if as_json else click.echo
    with tempfile.TemporaryDirectory(prefix="animica-hooks-demo-") as directory:
        answers, checks = _show(Path(directory), say)
    failed = [check for check in checks if check.expected != check.found]
    if as_json:
        click.echo(output.as_json(_document(answers, checks, ok=not failed)))
    else:
        output.table(
            ("what", "expected", "found", ""),
            [(c.what, c.expected, c.found, "NO" if c in failed else "ok") for c in checks],
        )
        click.echo(_what_next())
    if failed:
        wrong = "; ".join(f"{c.what}: {c.found} instead of {c.expected}" for c in failed)
        raise DemoFailed(f"the database does not hold what was sent: {wrong}")


def _show(directory: Path, say: Callable[[str], None]) -> tuple[Answers, list[Check]]:
    """Run the demo in a directory."""
    path = directory / "shop.db"
    secret = f"whsec_{secrets.token_hex(24)}"
    environment = {ENV_SECRET: secret, ENV_DATABASE_URL: f"sqlite:///{path}"}
    deliveries = make_deliveries(Random(2030))  # noqa: S311 - the same each time
    _make_ledger(path)

    say("starting the shop's server, with a setting forgotten")
    with _served({**environment, _CRM_URL: ""}, directory / "first.log") as url:
        say(f"delivering to {url}, over {CONNECTIONS} connections")
        answers = deliver(url, secret, deliveries)
        rate = len(deliveries) / answers.seconds
        say(
            f"  {len(deliveries)} answers in {answers.seconds:.1f} s ({rate:,.0f} a second, "
            f"p50 {answers.p50 * 1000:.1f} ms, p99 {answers.p99 * 1000:.1f} ms)"
        )
        _wait_for_jobs(path)
        say(f"all handled; {_count(path, _DEAD)} dead letters, for want of {_CRM_URL}")

    say(f"stopped with SIGTERM; starting it again with {_CRM_URL} set")
    with _served({**environment, _CRM_URL: "https://crm.example"}, directory / "second.log"):
        say("replaying the dead letters")
        run(_replay_dead(environment[ENV_DATABASE_URL]))
        _wait_for_jobs(path)
    return answers, _check(path, deliveries, answers)


def make_deliveries(random: Random) -> list[Delivery]:
    """Make up what is delivered, in random order."""
    events = [
        samples.make_event(type, samples.make_data(type, random), random)
        for type, count in EVENTS.items()
        for _ in range(count)
    ]
    kinds = {
        "event": events,
        "duplicate": random.sample(events, DUPLICATES),
        "unusable": [b"not JSON", b'["no", "object"]', b'{"type": "has.no.id", "data": {}}'],
    }
    for kind in ("tampered", "stale", "malformed"):
        kinds[kind] = [
            samples.make_event("payment.succeeded", {"amount": 1}, random)
            for _ in range(REFUSED_OF_EACH_KIND)
        ]
    deliveries = [Delivery(kind, body) for kind, bodies in kinds.items() for body in bodies]
    random.shuffle(deliveries)
    return deliveries


def deliver(url: str, secret: str, deliveries: Sequence[Delivery]) -> Answers:
    """Deliver over connections that are kept open, each sending the next when it has an answer."""

    def send(share: Sequence[Delivery]) -> list[tuple[str, int, float]]:
        answered = []
        with Sender(url) as sender:
            for delivery in share:
                answer = sender.deliver(*_signed(delivery, secret))
                answered.append((delivery.kind, answer.status, answer.seconds))
        return answered

    began = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        shares = [deliveries[first::CONNECTIONS] for first in range(CONNECTIONS)]
        answered = [answer for share in threads.map(send, shares) for answer in share]
    seconds = time.perf_counter() - began
    p50, p99 = percentiles([took for _, _, took in answered])
    return Answers(Counter((kind, status) for kind, status, _ in answered), seconds, p50, p99)


def _signed(delivery: Delivery, secret: str) -> tuple[bytes, str]:
    """Return the body to send and its signature: a good one, or one that is to be refused."""
    now = int(time.time())
    body = delivery.body
    match delivery.kind:
        case "tampered":
            return body.replace(b'"amount": 1', b'"amount": 9'), sign(body, secret, timestamp=now)
        case "stale":
            return body, sign(body, secret, timestamp=now - _STALE_S)
        case "malformed":
            return body, f"t={now},v1=none"
        case _:
            return body, sign(body, secret, timestamp=now)


@contextmanager
def _served(environment: dict[str, str], log: Path) -> Iterator[str]:
    """Run the app's server; yield its URL, and stop it as a deploy would."""
    command = [sys.executable, "-m", "animica_hooks", "serve", "animica_hooks.cli.demo_app:hooks"]
    with log.open("wb") as output_file:
        process = subprocess.Popen(  # noqa: S603 - this package, by its own name
            [*command, "--port", "0"],
            env={**os.environ, **environment},
            stdout=output_file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _wait_for(lambda: _url_in(log, process), "the server did not start")
        process.send_signal(signal.SIGTERM)
        if process.wait(PATIENCE_S) != 0:
            raise DemoFailed(f"the server ended with {process.returncode}: {log.read_text()}")
    finally:
        process.kill()
        process.wait()


def _url_in(log: Path, process: subprocess.Popen[bytes]) -> str | None:
    said = log.read_text()
    if process.poll() is not None:
        raise DemoFailed(f"the server did not start: {said}")
    found = re.search(r"receiving at (\S+)", said)
    return found[1] if found else None


def _wait_for_jobs(path: Path) -> None:
    _wait_for(lambda: _count(path, _UNFINISHED) == 0, "the handlers did not end")


def _wait_for(look: Callable[[], T | None], otherwise: str) -> T:
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        if found := look():
            return found
        time.sleep(0.02)
    raise DemoFailed(f"{otherwise} within {PATIENCE_S:.0f} s.")


async def _replay_dead(database_url: str) -> None:
    from animica_hooks.store.replay import ReplayFilters

    async with opened(database_url) as admin:
        await admin.replay(ReplayFilters(states=["dead"]))


def _make_ledger(path: Path) -> None:
    """Make the shop's own table, in the same database."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(_LEDGER)


def _check(path: Path, deliveries: Sequence[Delivery], answers: Answers) -> list[Check]:
    """Hold what the database has against what was sent."""
    sent = Counter(delivery.kind for delivery in deliveries)
    payloads = [json.loads(delivery.body) for delivery in deliveries if delivery.kind == "event"]
    ids = {payload["id"] for payload in payloads}
    payments = [p["data"] for p in payloads if p["type"] == "payment.succeeded"]
    with closing(sqlite3.connect(path)) as database:
        stored = {id for (id,) in database.execute("SELECT id FROM hooks_events")}

    def count(query: str) -> int:
        return _count(path, query)

    return [
        *(
            Check(
                f"{kind} deliveries answered {status}", sent[kind], answers.statuses[kind, status]
            )
            for kind, status in EXPECTED.items()
        ),
        Check("events stored, each once", len(ids), len(stored & ids)),
        Check("stored of what was refused", 0, len(stored - ids)),
        Check("duplicates counted", sent["duplicate"], count(_DUPLICATES)),
        Check("held in the quarantine", sent["unusable"], count(_QUARANTINED)),
        Check("payments booked, once each", len(payments), count(_BOOKED)),
        Check(
            "their amounts, summed up in cents", sum(p["amount"] for p in payments), count(_AMOUNTS)
        ),
        Check("receipts mailed at the third attempt", EVENTS["invoice.paid"], count(_MAILED)),
        Check("dead letters", EVENTS["customer.deleted"], count(_DEAD)),
        Check("dead letters replayed, and handled", EVENTS["customer.deleted"], count(_REPLAYED)),
        Check("events without a handler, kept", EVENTS["subscription.renewed"], count(_UNHANDLED)),
        Check("jobs left to do", 0, count(_UNFINISHED)),
    ]


def _count(path: Path, query: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        (found,) = database.execute(query).fetchone()
        return int(found or 0)


def _document(answers: Answers, checks: list[Check], *, ok: bool) -> dict[str, Any]:
    deliveries = answers.statuses.total()
    return {
        "ok": ok,
        "deliveries": deliveries,
        "deliveries_per_second": round(deliveries / answers.seconds, 1),
        "p50_ms": round(answers.p50 * 1000, 3),
        "p99_ms": round(answers.p99 * 1000, 3),
        "checks": checks,
    }


def _what_next() -> str:
    command = _command()
    return f"""Now with events of your own. In one terminal:

  export {ENV_SECRET}=whsec_{secrets.token_hex(16)}
  {command} serve

and in another, after the same export:

  {command} trigger payment.succeeded --data '{{"amount": 4200}}'
  {command} events list
  {command} jobs list
  {command} --help"""


def _command() -> str:
    """Return how this program was called, so that what is shown can be typed."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return "python -m animica_hooks"
    return "animica-hooks" if shutil.which("animica-hooks") == called else called
