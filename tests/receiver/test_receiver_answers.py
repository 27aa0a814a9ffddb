"""Every row of the HTTP contract: what arrives, what is answered, what is stored."""

import itertools
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from receiving import (
    OTHER_SECRET,
    SECRET,
    Reply,
    Request,
    ask,
    count,
    deliver,
    is_empty,
    rows,
    signed,
    stored_ids,
)

from animica_hooks import Event, Hooks
from animica_hooks.core.signature import secret_id
from animica_hooks.store.committer import Committer
from animica_hooks.testing import make_event, sign

Fault = Callable[[Request], object]

MAX_BODY = 4096


@pytest.fixture
def hooks(make_hooks: Callable[..., Hooks]) -> Hooks:
    return make_hooks(max_body=MAX_BODY, body_deadline=0.05)


async def test_new_event_is_stored_with_a_job_for_each_handler(
    hooks: Hooks, database: Path
) -> None:
    """A signed, new delivery is answered 204 with no body, and is stored as it was signed."""

    @hooks.on("payment.succeeded", name="first")
    async def first(event: Event) -> None: ...

    @hooks.on("payment.*", name="second")
    def second(event: Event) -> None: ...

    @hooks.on("refund.*", name="other")
    async def other(event: Event) -> None: ...

    body = make_event("payment.succeeded", {"amount": 1, "name": "Zoë"}, id="evt_1")
    async with hooks.lifespan():
        reply = await deliver(hooks, body)
        names = "SELECT name FROM hooks_jobs j JOIN hooks_handlers h ON h.id = j.handler_id"
        assert [("first",), ("second",)] == sorted(rows(database, names))

    assert Reply(204, {}, b"") == reply
    assert [("animica", "evt_1", "payment.succeeded", body)] == rows(
        database, "SELECT endpoint, id, type, body FROM hooks_events"
    )
    assert 0 == count(database, "hooks_quarantine")


async def test_event_without_a_handler_is_stored(hooks: Hooks, database: Path) -> None:
    """An event that no handler takes is kept, for a handler that is yet to be written."""
    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, make_event("nobody.cares", id="evt_1"))).status
        assert 1 == (await hooks.stats()).counts["no_handler"]
    assert ["evt_1"] == stored_ids(database)
    assert 0 == count(database, "hooks_jobs")


@pytest.mark.parametrize("spare", [0, 1])
async def test_largest_body(hooks: Hooks, database: Path, spare: int) -> None:
    """A body of exactly the limit is taken."""
    event = make_event("a.b", {"filler": ""}, id="evt_1")
    body = event.replace(b'""', b'"' + b"x" * (MAX_BODY - spare - len(event)) + b'"')
    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, body)).status
    assert [(MAX_BODY - spare,)] == rows(database, "SELECT length(body) FROM hooks_events")


# What is not signed: one cause each, and the reason that the metric counts.
UNSIGNED: dict[str, tuple[str, Fault]] = {
    "no header": ("missing", lambda r: r.without(b"x-animica-signature")),
    "empty header": ("missing", lambda r: r.replace(b"x-animica-signature", b"")),
    "garbage": ("malformed", lambda r: r.replace(b"x-animica-signature", b"\xff\x00 t=1")),
    "header twice": ("malformed", lambda r: r.headers.append(r.headers[-1])),
    "no digest": ("malformed", lambda r: r.replace(b"x-animica-signature", b"t=%d" % time.time())),
    "stale": ("timestamp", lambda r: _sign(r, timestamp=int(time.time()) - 310)),
    "future": ("timestamp", lambda r: _sign(r, timestamp=int(time.time()) + 310)),
    "wrong secret": ("mismatch", lambda r: _sign(r, secret=OTHER_SECRET)),
    "other body": ("mismatch", lambda r: setattr(r, "body", r.body.replace(b"4200", b"4201"))),
    "unknown endpoint": ("mismatch", lambda r: setattr(r, "path", "/elsewhere")),
}


def _sign(request: Request, *, secret: str = SECRET, timestamp: int | None = None) -> Request:
    signature = sign(request.body, secret, timestamp=timestamp)
    return request.replace(b"x-animica-signature", signature.encode())


@pytest.mark.parametrize("cause", UNSIGNED)
async def test_unsigned_is_refused(
    hooks: Hooks, database: Path, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not signed is answered 400; why is said in the log and the metric, and only there."""
    reason, fault = UNSIGNED[cause]
    request = signed()
    fault(request)
    async with hooks.lifespan():
        reply = await ask(hooks, request)
        stats = await hooks.stats()

    assert 400 == reply.status
    assert "application/json" == reply.headers["content-type"]
    assert str(len(reply.body)) == reply.headers["content-length"]
    assert ("invalid_request_error", "invalid_signature") == (
        reply.error["type"],
        reply.error["code"],
    )
    assert {f"rejected.{reason}": 1} == stats.counts
    assert f"rejected a request: invalid_signature, {reason}" in caplog.text
    assert reason not in reply.body.decode()
    assert is_empty(database)


async def test_unsigned_answers_have_one_body(hooks: Hooks) -> None:
    """The 400 of every cause has the same body, byte for byte."""
    bodies = set()
    async with hooks.lifespan():
        for _, fault in UNSIGNED.values():
            request = signed()
            fault(request)
            bodies.add((await ask(hooks, request)).body)
    assert 1 == len(bodies)


async def test_unsigned_answers_do_not_tell_a_stale_time_from_a_wrong_secret(hooks: Hooks) -> None:
    """Stale, mismatched and sent elsewhere: the whole answers are the same, headers too."""
    replies = []
    async with hooks.lifespan():
        for cause in ("stale", "future", "wrong secret", "other body", "unknown endpoint"):
            request = signed()
            UNSIGNED[cause][1](request)
            replies.append(await ask(hooks, request))
    assert [replies[0]] * len(replies) == replies


async def test_rotation_of_the_secret(make_hooks: Callable[..., Hooks], database: Path) -> None:
    """Both verify, and the metric tells by which; once it is no longer listed the old one is wrong.

    So it can be seen when nobody signs with the old one any more.
    """
    new, old = SECRET, OTHER_SECRET
    ids = {secret: secret_id(secret.encode()) for secret in (new, old)}
    hooks = make_hooks(signing_secret=[new, old])
    async with hooks.lifespan():
        for secret in (old, new, old):
            assert 204 == (await ask(hooks, signed(secret=secret))).status
        both = _sign(signed(), secret=old)
        [(_, header)] = [h for h in both.headers if h[0] == b"x-animica-signature"]
        by_new = sign(both.body, new, timestamp=int(header[2 : header.index(b",")]))
        both.replace(b"x-animica-signature", header + b"," + by_new.split(",")[1].encode())
        assert 204 == (await ask(hooks, both)).status
        counts = (await hooks.stats()).counts
        verified = {id: counts[f"verified.{id}"] for id in ids.values()}
    assert 4 == sum(verified.values())
    assert verified[ids[old]] >= 2
    assert verified[ids[new]] >= 1

    hooks = make_hooks(signing_secret=[new])
    async with hooks.lifespan():
        assert 400 == (await ask(hooks, signed(secret=old))).status
        assert 204 == (await ask(hooks, signed(secret=new))).status
    assert 5 == count(database, "hooks_events")


def _stall(request: Request) -> None:
    request.chunks, request.stalls = [request.body[:10]], True


# The checks, in the order of the contract: what fails at each, its status and its code.
ORDER: dict[str, tuple[int, str, Fault]] = {
    "method": (405, "method_not_allowed", lambda r: setattr(r, "method", "PUT")),
    "encoding": (
        415,
        "unsupported_encoding",
        lambda r: r.headers.append((b"content-encoding", b"gzip")),
    ),
    "grammar": (400, "invalid_signature", lambda r: r.replace(b"x-animica-signature", b"t=1")),
    "clock": (400, "invalid_signature", lambda r: _sign(r, timestamp=1)),
    "declared": (
        413,
        "payload_too_large",
        lambda r: r.replace(b"content-length", b"%d" % (MAX_BODY + 1)),
    ),
    "slow": (408, "body_timeout", _stall),
    "secret": (400, "invalid_signature", lambda r: _sign(r, secret=OTHER_SECRET)),
    "unavailable": (503, "unavailable", lambda r: None),  # the receiver drains
}
HEADERS = {
    405: {"allow": "POST"},
    408: {"connection": "close"},
    413: {"connection": "close"},
    415: {"connection": "close"},
    503: {"retry-after": "2"},
}


async def _fail(hooks: Hooks, *faults: str) -> Reply:
    request = signed()
    # The order that faults are applied in is not the order of checks: signatures sign the rest.
    for fault in reversed(faults):
        ORDER[fault][2](request)
    async with hooks.lifespan():
        if "unavailable" in faults:
            hooks._begin_draining()
        return await ask(hooks, request)


@pytest.mark.parametrize("fault", ORDER)
async def test_refusal(hooks: Hooks, database: Path, fault: str) -> None:
    """Each refusal has its status, its code, its headers, and leaves nothing behind."""
    status, code, _ = ORDER[fault]
    reply = await _fail(hooks, fault)
    kind = "invalid_request_error" if status < 500 else "api_error"
    assert (status, kind, code) == (reply.status, reply.error["type"], reply.error["code"])
    assert HEADERS.get(status, {}).items() <= reply.headers.items()
    assert "application/json" == reply.headers["content-type"]
    assert is_empty(database)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pair
        for pair in itertools.combinations(ORDER, 2)
        # Both give the signature header another value, so that only one of the two can be wrong.
        if not {"grammar", "clock", "secret"}.issuperset(pair)
    ],
)
async def test_order_of_checks(hooks: Hooks, first: str, second: str) -> None:
    """Of two things that are wrong, the answer is that of the first in the contract's order."""
    status, code, _ = ORDER[first]
    reply = await _fail(hooks, first, second)
    assert (status, code) == (reply.status, reply.error["code"])


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "OPTIONS", "PATCH", "DELETE", "TRACE", "QUERY", "post"]
)
async def test_other_methods(hooks: Hooks, database: Path, method: str) -> None:
    """Any method but POST is answered 405 with what is allowed, signed or not; nothing is read."""
    async with hooks.lifespan():
        for request in (signed(), Request(b"", [])):
            request.method = method
            reply = await ask(hooks, request)
            assert (405, "POST") == (reply.status, reply.headers["allow"])
            assert 0 == request.reads
    assert is_empty(database)


@pytest.mark.parametrize(
    "encodings",
    [
        [b"gzip"],
        [b"GZIP"],
        [b"br"],
        [b"deflate"],
        [b"gzip, identity"],
        [b"gzip", b"identity"],
        [b"identity", b"gzip"],
        [b"\xff"],
    ],
)
async def test_encoded_body_is_refused_unread(
    hooks: Hooks, database: Path, encodings: list[bytes]
) -> None:
    """A Content-Encoding is answered 415 before a byte of the body is read, let alone inflated."""
    request = signed()
    request.headers += [(b"content-encoding", encoding) for encoding in encodings]
    async with hooks.lifespan():
        reply = await ask(hooks, request)
    assert (415, "unsupported_encoding") == (reply.status, reply.code)
    assert 0 == request.reads
    assert is_empty(database)


@pytest.mark.parametrize("encoding", [b"identity", b"Identity", b""])
async def test_no_encoding_by_name_is_taken(hooks: Hooks, encoding: bytes) -> None:
    """``Content-Encoding: identity`` means none."""
    request = signed()
    request.headers.append((b"content-encoding", encoding))
    async with hooks.lifespan():
        assert 204 == (await ask(hooks, request)).status


@pytest.mark.parametrize(
    "length", [b"9" * 5000, b"-1", b"1e3", b"+5", b" 5", b"\xb2", b"0x10", b"", b"5, 5"]
)
async def test_absurd_length_never_raises(hooks: Hooks, length: bytes) -> None:
    """A Content-Length that a careless server lets through is answered, not raised on."""
    request = signed().replace(b"content-length", length)
    async with hooks.lifespan():
        assert (await ask(hooks, request)).status in (204, 400, 413)


async def test_body_in_pieces(hooks: Hooks, database: Path) -> None:
    """A body may arrive in any pieces, without a declared length."""
    body = make_event("a.b", {"n": 1}, id="evt_1")
    request = signed(body).without(b"content-length")
    request.chunks = [bytes([byte]) for byte in body] + [b""]
    async with hooks.lifespan():
        assert 204 == (await ask(hooks, request)).status
    assert [(body,)] == rows(database, "SELECT body FROM hooks_events")


@pytest.mark.parametrize("final", [b"x" * MAX_BODY, b""])
async def test_undeclared_body_is_cut_off_at_the_limit(
    hooks: Hooks, database: Path, final: bytes
) -> None:
    """A body of undeclared length is answered 413 as soon as it is over the limit."""
    request = signed().without(b"content-length")
    request.chunks = [b"x" * MAX_BODY, b"x", *[b"x" * MAX_BODY] * 1000, final]
    async with hooks.lifespan():
        reply = await ask(hooks, request)
    assert (413, "payload_too_large") == (reply.status, reply.code)
    assert 2 == request.reads
    assert is_empty(database)


async def test_only_http_is_served(hooks: Hooks) -> None:
    """A WebSocket is closed, and a scope of a kind that ASGI may yet invent is refused."""
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await hooks({"type": "websocket"}, receive, send)
    assert [{"type": "websocket.close", "code": 1008}] == sent
    with pytest.raises(NotImplementedError):
        await hooks({"type": "carrier pigeon"}, receive, send)


# The first promise: what is answered 2xx is on disk before the answer.


async def _unstored_when_answered(hooks: Hooks, database: Path) -> list[str]:
    """Deliver events, and return those that were answered 2xx before another program saw them."""
    missing = []
    for number in range(5):
        id = f"evt_{number}"
        request = signed(make_event("a.b", id=id))

        def look(status: int, id: str = id) -> None:
            if status < 300 and id not in stored_ids(database):
                missing.append(id)

        request.answered = look
        await ask(hooks, request)
    return missing


async def test_answer_follows_the_commit(hooks: Hooks, database: Path) -> None:
    """At the moment of the answer, another program finds the event in the database."""
    async with hooks.lifespan():
        assert [] == await _unstored_when_answered(hooks, database)


async def test_look_at_the_answer_would_see_an_early_one(
    hooks: Hooks, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails for a receiver that answers before it commits."""
    commits = Committer.deliver

    async def answer_first(committer: Committer, delivery: Any) -> None:
        commits(committer, delivery)

    monkeypatch.setattr(Committer, "deliver", answer_first)
    async with hooks.lifespan():
        assert ["evt_0"] == (await _unstored_when_answered(hooks, database))[:1]
