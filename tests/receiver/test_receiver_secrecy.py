"""No secret and no payload is in what a process says of itself: its log, its errors, its reprs."""

import asyncio
import logging
import pickle
import sqlite3
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from receiving import Request, ask, rows, signed, until
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import ConfigurationError, Event, Hooks, RetryPolicy
from animica_hooks.core.signature import Verifier, encode_secrets
from animica_hooks.testing import make_event, sign

SECRET = "whsec_CANARY-4f9a6e1b8c"
PAYLOAD = "CANARY-in-the-payload"
HEADER = "CANARY-in-a-header"


@pytest.fixture
def hooks(make_hooks: Callable[..., Hooks]) -> Hooks:
    hooks = make_hooks(signing_secret=SECRET, ack_deadline=0.3)

    @hooks.on("*", name="writes")
    async def writes(event: Event, session: AsyncSession) -> None:
        await session.execute(text("CREATE TABLE IF NOT EXISTS mine (body TEXT)"))
        await session.execute(text("INSERT INTO mine VALUES (:body)"), {"body": str(event.data)})
        await session.execute(text("SELECT * FROM mine"))

    @hooks.on("*", name="writes_plainly")
    def writes_plainly(event: Event, session: Session) -> None:
        session.execute(text("CREATE TABLE IF NOT EXISTS mine (body TEXT)"))
        session.execute(text("INSERT INTO mine VALUES (:body)"), {"body": str(event.data)})

    @hooks.on("*", name="fails", retry=RetryPolicy(max_attempts=1))
    async def fails(event: Event) -> None:
        raise ValueError(f"can not handle {event.payload}")

    @hooks.on("*", name="writes_wrongly", retry=RetryPolicy(max_attempts=1))
    async def writes_wrongly(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO missing VALUES (:body)"), {"body": str(event.data)})

    return hooks


def _delivery(body: bytes | None = None, secret: str = SECRET) -> Request:
    body = make_event("a.b", {"note": PAYLOAD}) if body is None else body
    request = signed(body, secret=secret)
    request.headers.append((b"x-note", HEADER.encode()))
    return request


async def _run_everything(hooks: Hooks, database: Path) -> None:
    """Deliver what is stored, refused, quarantined, repeated, contradicted, failed and replayed."""
    conflict = [make_event("a.b", {"note": PAYLOAD, "n": n}, id="evt_1") for n in (1, 2)]
    async with hooks.lifespan():
        for request in (
            _delivery(),
            *map(_delivery, conflict),
            _delivery(f'["{PAYLOAD}"'.encode()),
            _delivery(secret="whsec_somebody-elses-CANARY"),
            _delivery().replace(b"x-animica-signature", b"t=CANARY"),
            _delivery().replace(b"x-animica-signature", sign(b"", SECRET, timestamp=1).encode()),
            _delivery().replace(b"content-length", b"1"),
        ):
            await ask(hooks, request)
        # For the next one blocks the loop that a handler's transaction needs to end.
        await _rest(database)
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert 503 == (await ask(hooks, _delivery())).status
        await _rest(database)
        await hooks.replay(all=True)
        await hooks.replay(all=True, dry_run=True, force=True)
        async for _ in hooks.events():
            pass
        async for _ in hooks.jobs():
            pass
        await hooks.stats()


async def _rest(database: Path) -> None:
    """Wait until no handler runs."""
    await until(lambda: not rows(database, "SELECT 1 FROM hooks_jobs WHERE state = 'leased'"))


def _canaries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log's lines that hold a canary, with their tracebacks."""
    lines = [caplog.handler.format(record) for record in caplog.records]
    return [line for line in lines if "CANARY" in line]


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
async def test_log(
    hooks: Hooks, database: Path, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happens to a delivery, no part of it and no secret is in the log, at any level."""
    caplog.set_level(level)
    asyncio.get_running_loop().set_debug(level == logging.DEBUG)
    await _run_everything(hooks, database)
    assert [] == _canaries(caplog)
    for said in ("rejected a request", "another body", "quarantine", "(fails, event"):
        assert said in caplog.text


async def test_log_would_show_a_careless_handler(
    make_hooks: Callable[..., Hooks], caplog: pytest.LogCaptureFixture
) -> None:
    """The test above fails for anything that logs a payload."""
    hooks = make_hooks(signing_secret=SECRET)

    @hooks.on("*", name="careless")
    async def careless(event: Event) -> None:
        logging.getLogger("app").warning("got %s", event.data)

    async with hooks.lifespan():
        await ask(hooks, _delivery())
        await until(lambda: _canaries(caplog))


async def test_kept_failures_hold_no_secret(hooks: Hooks, database: Path) -> None:
    """What a failed attempt leaves in the database is scrubbed of secrets."""

    @hooks.on("a.b", name="leaks", retry=RetryPolicy(max_attempts=1))
    async def leaks(event: Event) -> None:
        raise ValueError(f"can not sign with {SECRET}")

    async with hooks.lifespan():
        await ask(hooks, _delivery())
        await until(
            lambda: rows(database, "SELECT 1 FROM hooks_failures WHERE message LIKE '%***'")
        )
    kept = rows(database, "SELECT message, traceback FROM hooks_failures")
    assert "can not sign with ***" in str(kept)
    assert SECRET not in str(kept)


async def test_database_holds_no_credentials(hooks: Hooks, database: Path) -> None:
    """Of a delivery's headers, those that carry credentials of the app's are not stored."""
    request = _delivery()
    request.headers += [(b"authorization", b"Bearer CANARY"), (b"cookie", b"session=CANARY")]
    async with hooks.lifespan():
        assert 204 == (await ask(hooks, request)).status
        [(headers,)] = rows(database, "SELECT headers FROM hooks_events")
    assert HEADER.encode() in headers
    assert b"Bearer" not in headers
    assert b"session" not in headers


async def test_reprs(hooks: Hooks) -> None:
    """Nothing that a debugger or an error tracker shows of the parts holds a secret."""
    secrets = encode_secrets([SECRET])
    async with hooks.lifespan():
        shown = [hooks, hooks.settings, vars(hooks), Verifier(secrets, tolerance_s=300)]
        shown += [hooks.handlers(), vars(hooks._runtime), await hooks.stats()]
        assert "CANARY" not in repr(shown)


@pytest.mark.parametrize(
    "secret", ["CANARY", "CANARY-with-white-space ", " CANARY-with-white-space", "CANARY\0short"]
)
def test_configuration_errors_quote_no_secret(secret: str) -> None:
    """An error about a secret, its traceback and its pickle do not quote it."""
    with pytest.raises(ConfigurationError) as caught:
        Hooks(signing_secret=secret)
    error = caught.value
    shown = [repr(error), *traceback.format_exception(error), repr(pickle.dumps(error))]
    # The line of this test that gives the secret does not spell it.
    assert "CANARY" not in "".join(shown)


async def test_answers_quote_nothing(hooks: Hooks) -> None:
    """No answer quotes anything of the request."""
    async with hooks.lifespan():
        for request in (
            _delivery(secret="whsec_somebody-elses-CANARY"),
            _delivery().replace(b"content-encoding", b"CANARY"),
            _delivery().replace(b"content-length", b"1"),
            _delivery(b"CANARY"),
        ):
            reply = await ask(hooks, request)
            assert "CANARY" not in f"{reply.headers} {reply.body!r}"


async def test_same_work_for_every_stranger(hooks: Hooks) -> None:
    """A wrong secret, a stale time and an unknown endpoint cost the same HMAC of the whole body."""
    body = make_event("a.b", {"filler": "x" * 1_000_000})
    elsewhere = _delivery(body)
    elsewhere.path = "/elsewhere"
    stale = _delivery(body).replace(
        b"x-animica-signature", sign(body, SECRET, timestamp=int(time.time()) - 400).encode()
    )
    reads = []
    async with hooks.lifespan():
        for request in (_delivery(body, secret="whsec_somebody-elses"), elsewhere, stale):
            assert 400 == (await ask(hooks, request)).status
            reads.append(request.reads)
    assert [1, 1, 1] == reads
