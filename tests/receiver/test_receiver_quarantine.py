"""What is signed is never lost: what is not usable is kept, and what is odd is stored as it is."""

import json
import logging

import pytest
from databases import on_every_database
from receiving import Database, count, deliver, is_empty, rows, stored_ids, until

from animica_hooks import Event, Hooks, RetryPolicy
from animica_hooks.testing import make_event

CANARY = "CANARY-in-the-payload"


def _envelope(**fields: object) -> bytes:
    return json.dumps({"id": "evt_1", "type": "a.b", "note": CANARY, **fields}).encode()


def _nested(depth: int) -> bytes:
    return _envelope(data=0).replace(b'"data": 0', b'"data": ' + b"[" * depth + b"]" * depth)


UNUSABLE: dict[str, bytes] = {
    "empty": b"",
    "not JSON": CANARY.encode(),
    "cut off": _envelope()[:-1],
    "two documents": _envelope() * 2,
    "array": f'["{CANARY}"]'.encode(),
    "string": f'"{CANARY}"'.encode(),
    "number": b"1",
    "null": b"null",
    "byte order mark": b"\xef\xbb\xbf" + _envelope(),
    "UTF-16": _envelope().decode().encode("utf-16"),
    "UTF-32": _envelope().decode().encode("utf-32"),
    "overlong": _envelope().replace(b"CANARY", b"\xc0\xaf"),
    "surrogates in UTF-8": _envelope().replace(b"CANARY", b"\xed\xa0\xbd\xed\xb8\x80"),
    "not UTF-8": _envelope().replace(b"CANARY", b"\xff\xfe"),
    "lone surrogate": _envelope(data="\ud800"),
    "NaN": _envelope(data=float("nan")),
    "infinity": _envelope(data=float("inf")),
    "number beyond any": _envelope(data=0).replace(b'"data": 0', b'"data": 1e400'),
    "integer of 4301 digits": _envelope(data=0).replace(b'"data": 0', b'"data": ' + b"9" * 4301),
    "deep": _nested(100_000),
    "deep in objects": _envelope(data=0).replace(
        b"0}", b'{"a":' * 1000 + b"0" + b"}" * 1000 + b"}"
    ),
    "deep in both": _envelope(data=0).replace(b"0}", b'[{"a":' * 500 + b"0" + b"}]" * 500 + b"}"),
    "no id": b'{"type": "a.b"}',
    "id null": _envelope(id=None),
    "id a number": _envelope(id=1),
    "id a list": _envelope(id=["evt_1"]),
    "id empty": _envelope(id=""),
    "id too long": _envelope(id="e" * 256),
    "id not ASCII": _envelope(id="evt_é"),
    "id of two lines": _envelope(id="evt_1\nevt_2"),
    "id with NUL": _envelope(id="evt_1\0"),
    "no type": b'{"id": "evt_1"}',
    "type null": _envelope(type=None),
    "type a number": _envelope(type=1),
    "type empty": _envelope(type=""),
}


@on_every_database
@pytest.mark.parametrize("kind", UNUSABLE)
async def test_unusable_is_kept(
    hooks: Hooks, database: Database, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An authentic delivery that is no event is answered 204 and kept raw, once, with a warning."""
    body = UNUSABLE[kind]
    async with hooks.lifespan():
        for _ in range(2):
            reply = await deliver(hooks, body)
            assert (204, b"") == (reply.status, reply.body)
        stats = await hooks.stats()

    assert [(body, 2)] == rows(database, "SELECT body, deliveries FROM hooks_quarantine")
    [(reason,)] = rows(database, "SELECT reason FROM hooks_quarantine")
    assert CANARY not in reason
    assert 0 == count(database, "hooks_events") + count(database, "hooks_jobs")
    assert (1, 2) == (stats.quarantined, stats.counts["deliveries.quarantined"])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert reason in warnings[0]
    assert CANARY not in caplog.text


USABLE: dict[str, bytes] = {
    "keys twice": b'{"id": "evt_0", "type": "a.b", "\\u0069d": "evt_1"}',
    "large integer": _envelope(data=2**64),
    "NUL in a text": _envelope(data=0).replace(b'"data": 0', b'"data": "a\\u0000b"'),
    "unknown fields": _envelope(__proto__={"id": "x"}),
    "data missing": b'{"id": "evt_1", "type": "a.b"}',
    "data a list": _envelope(data=[1]),
    "white space": b" \n" + _envelope() + b"\r\n\t",
    "as deep as it may be": _nested(99),
    "escapes": _envelope(data="\x00\U0001f600"),
    "no prefix": b'{"type": "a.b", "id": "evt_1", "created": "yesterday"}',
}


@on_every_database
@pytest.mark.parametrize("kind", USABLE)
async def test_odd_is_stored_as_sent(hooks: Hooks, database: Database, kind: str) -> None:
    """JSON that is odd but usable is an event, whose stored bytes are those that were sent."""
    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, USABLE[kind])).status
    assert [("evt_1", USABLE[kind])] == rows(database, "SELECT id, body FROM hooks_events")


TYPES = ["never.heard", "__proto__", "x" * 10_000, "a\nb\x1b[31mc", "a.é\u2028b", "<script>", "%s"]


@on_every_database
@pytest.mark.parametrize("type", TYPES)
async def test_odd_type(
    hooks: Hooks, database: Database, type: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A type is any text: stored as it is, shown in no more than a line of the log."""
    caplog.set_level(logging.DEBUG, "animica_hooks")

    @hooks.on("*", name="fails", retry=RetryPolicy(max_attempts=1))
    async def fails(event: Event) -> None:
        raise ValueError(f"can not handle {event.type}")

    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, make_event(type))).status
        await until(lambda: rows(database, "SELECT id FROM hooks_jobs WHERE state = 'dead'"))
        [event] = [event async for event in hooks.events()]

    assert type == event.type
    assert [(type,)] == rows(database, "SELECT type FROM hooks_events")
    assert [] == _unprintable(caplog.records)
    assert any("fails" in r.getMessage() for r in caplog.records)


def _unprintable(records: list[logging.LogRecord]) -> list[str]:
    """Return the log's messages that are more than one line, or that a terminal obeys."""
    return [m for r in records if not (m := r.getMessage()).isprintable()]


@pytest.mark.parametrize("type", ["a\nb", "\x1b[31m", "\u2028"])
def test_unprintable_would_see_a_raw_type(type: str, caplog: pytest.LogCaptureFixture) -> None:
    """The look at the log above fails for a line that quotes a type as it is."""
    logging.getLogger("animica_hooks").warning("no handler for %s", type)
    assert 1 == len(_unprintable(caplog.records))


@on_every_database
async def test_type_that_is_too_long(hooks: Hooks, database: Database) -> None:
    """A type longer than any that a person gives is kept in the quarantine."""
    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, make_event("x" * 100_000))).status
    assert [] == stored_ids(database)
    assert not is_empty(database)
