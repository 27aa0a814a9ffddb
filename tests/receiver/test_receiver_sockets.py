"""Real connections, and what strangers do with them: what lies, stalls, is malformed or ends."""

import json
import logging
import math
import socket
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from receiving import (
    PATIENCE_S,
    Header,
    Process,
    Reply,
    Server,
    connect,
    count,
    exchange,
    head,
    is_empty,
    parse_reply,
    raw,
    read_all,
    rows,
    signed,
    stored_ids,
    wait_for,
)
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from animica_hooks import Event, Hooks
from animica_hooks.testing import make_event

MEGABYTE = 1024 * 1024
BODY_DEADLINE_S = 0.3
TIMER_S = 0.005  # uvloop counts whole milliseconds, and so may be early by one


@pytest.fixture
def hooks(make_hooks: Callable[..., Hooks]) -> Hooks:
    return make_hooks(max_body=MEGABYTE, body_deadline=BODY_DEADLINE_S + TIMER_S, ack_deadline=0.5)


@pytest.fixture(params=["httptools", "serve"])
def http(request: pytest.FixtureRequest) -> str:
    """What parses requests: uvicorn's parser, or that of ``animica-hooks serve``."""
    http: str = request.param
    return http


@pytest.fixture
def server(hooks: Hooks, http: str) -> Iterator[Server]:
    with Server(hooks, http=http) as server:
        yield server


def _counts(hooks: Hooks) -> dict[str, int]:
    """Return what the receiver has counted, though its loop runs in another thread."""
    assert hooks._runtime is not None
    counts: Any = hooks._runtime.of_process()["counts"]
    return dict(counts)


def _delivers(port: int, body: bytes | None = None) -> bool:
    """Tell whether the server still takes what is in order."""
    return 204 == parse_reply(exchange(port, raw(signed(body)))).status


# Too large.


def test_declared_too_large(server: Server, database: Path) -> None:
    """A body that is declared too large is answered 413 before any of it is sent."""
    request = signed().replace(b"content-length", b"%d" % (2 * MEGABYTE))
    reply = parse_reply(exchange(server.port, head("POST", "/", request.headers)))
    assert (413, "payload_too_large") == (reply.status, reply.code)
    assert "close" == reply.headers["connection"]
    assert is_empty(database)


def test_declared_too_large_is_not_asked_for(server: Server) -> None:
    """A client that asks first, with ``Expect: 100-continue``, is not told to go on."""
    request = signed().replace(b"content-length", b"%d" % (2 * MEGABYTE))
    request.headers.append((b"expect", b"100-continue"))
    assert 413 == parse_reply(exchange(server.port, head("POST", "/", request.headers))).status
    request = signed()
    request.headers.append((b"expect", b"100-continue"))
    with connect(server.port) as connection:
        connection.sendall(head("POST", "/", request.headers))
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == connection.recv(100)
        connection.sendall(request.body)
        assert b"HTTP/1.1 204" == connection.recv(100)[:12]


def _stream(port: int, most: float) -> tuple[Reply, int]:
    """Stream a body in chunks until the server ends it; return its answer and what was sent."""
    request = signed().without(b"content-length")
    request.headers += [(b"transfer-encoding", b"chunked"), (b"connection", b"close")]
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    with connect(port) as connection:
        connection.sendall(head("POST", "/", request.headers))
        try:
            while sent < most:
                connection.sendall(chunk)
                sent += 65536
            connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
        return parse_reply(read_all(connection)), sent


def test_streamed_too_large(database: Path, http: str) -> None:
    """A stream that never ends is cut off at the limit, and costs the server little memory."""
    with Process("hooks", database, http=http) as process:
        assert _delivers(process.port, make_event("a.b", {"filler": "x" * 900_000}))
        before = process.peak_memory
        for _ in range(5 if http == "httptools" else 1):
            reply, sent = _stream(process.port, 200 * MEGABYTE if http == "httptools" else math.inf)
            assert 413 == reply.status
            if http == "serve":  # which reads on for a moment, so that its answer arrives
                assert "payload_too_large" == reply.code
            else:  # which leaves input unread: the answer's end may be lost by the reset
                assert reply.code in ("payload_too_large", "")
                assert sent < 20 * MEGABYTE  # what the sockets' buffers hold
        assert process.peak_memory - before < 5 * MEGABYTE
        assert 1 == count(database, "hooks_events")


def test_streamed_too_large_would_show_a_greedy_receiver(database: Path) -> None:
    """The test above fails for a receiver that reads all there is before it looks at its size."""
    with Process("greedy", database) as process:
        before = process.peak_memory
        _, sent = _stream(process.port, 12 * MEGABYTE)
        assert 12 * MEGABYTE == sent
        assert process.peak_memory - before > 5 * MEGABYTE


@pytest.mark.parametrize("off", [-1, -100])
def test_length_that_is_too_short(server: Server, database: Path, off: int) -> None:
    """More body than declared: the signature does not fit, and the rest is not a request."""
    request = signed()
    request.replace(b"content-length", b"%d" % (len(request.body) + off))
    received = exchange(server.port, raw(request, close=False), b"\r\n\r\n")
    assert 400 == parse_reply(received).status
    assert is_empty(database)
    assert _delivers(server.port)


def test_length_that_is_too_long(server: Server, database: Path) -> None:
    """Less body than declared: answered 408 at the deadline, nothing stored."""
    request = signed()
    request.replace(b"content-length", b"%d" % (len(request.body) + 1))
    reply = parse_reply(exchange(server.port, raw(request)))
    assert (408, "body_timeout") == (reply.status, reply.code)
    assert is_empty(database)


# Too slow.


def _trickle(connection: socket.socket, body: bytes) -> bytes:
    """Send a byte now and then, for as long as nobody answers; return the answer."""
    connection.settimeout(0.02)
    for byte in body:
        try:
            connection.sendall(bytes([byte]))
            return connection.recv(65536)
        except TimeoutError:
            continue
    raise AssertionError("it was never answered")


@pytest.mark.parametrize("framing", ["declared", "chunked", "headers only"])
def test_slow_body(server: Server, database: Path, framing: str) -> None:
    """A body that trickles in, or never comes, is answered 408 in time, and its slot is free."""
    request = signed(make_event("a.b", {"filler": "x" * 10_000}))
    body = request.body
    if framing == "chunked":
        request.without(b"content-length").headers.append((b"transfer-encoding", b"chunked"))
        body = b"1\r\nx\r\n" * 10_000
    began = time.monotonic()
    with connect(server.port) as connection:
        connection.sendall(head("POST", "/", request.headers))
        received = read_all(connection) if "only" in framing else _trickle(connection, body)
    reply = parse_reply(received)
    assert (408, "body_timeout", "close") == (reply.status, reply.code, reply.headers["connection"])
    assert BODY_DEADLINE_S <= time.monotonic() - began < PATIENCE_S
    wait_for(lambda: not server.busy)
    assert is_empty(database)


def test_slow_clients_are_in_nobodys_way(server: Server, database: Path) -> None:
    """While a hundred bodies stall, others are taken at once; all the slots are free in the end."""
    stalled = [connect(server.port) for _ in range(100)]
    for connection in stalled:
        connection.sendall(head("POST", "/", signed().headers))
    assert _delivers(server.port)
    for connection in stalled:
        with connection:
            assert 408 == parse_reply(read_all(connection)).status
    wait_for(lambda: not server.busy)
    assert 1 == count(database, "hooks_events")


# HTTP that is none.


def _with(*headers: Header) -> Callable[[bytes], bytes]:
    def add(request: bytes) -> bytes:
        start, _, rest = request.partition(b"\r\n")
        lines = [start, *(name + b":" + value for name, value in headers)]
        return b"\r\n".join([*lines, rest])

    return add


# Each makes a delivery that is in order one that two parsers could read in two ways.
MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "length and chunked": _with((b"transfer-encoding", b"chunked")),
    "two lengths": _with((b"content-length", b"5")),
    "length of two": lambda r: r.replace(b"content-length: ", b"content-length: 5, "),
    "length with a sign": lambda r: r.replace(b"content-length: ", b"content-length: +"),
    "folded header": _with((b"x-folded", b" a\r\n b")),
    "bare LF": lambda r: r.replace(b"content-type: application/json\r\n", b"x: y\n"),
    "NUL in a value": _with((b"x-nul", b"a\0b")),
    "CR in a value": _with((b"x-cr", b"a\rb")),
    "NUL in a name": _with((b"x-n\0l", b"a")),
    "space before the colon": _with((b"x-space ", b"a")),
    "no colon": lambda r: r.replace(b"content-type: ", b"content-type "),
    "unknown coding": lambda r: r.replace(
        b"content-length: ", b"transfer-encoding: chunked, gzip\r\nx-length: "
    ),
    "TLS": lambda r: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + r,
}


def _taken(port: int, kind: str) -> bool:
    """Tell whether a malformed delivery is answered like one that is in order."""
    received = exchange(port, MALFORMED[kind](raw(signed())))
    reply = parse_reply(received)
    return not (400 == reply.status and "close" == reply.headers["connection"])


def test_malformed_http(server: Server, database: Path) -> None:
    """What is not HTTP beyond doubt is answered 400 by the server, signed or not."""
    assert [] == [kind for kind in MALFORMED if _taken(server.port, kind)]
    assert is_empty(database)


def test_malformed_http_would_show_a_lenient_parser(hooks: Hooks, database: Path) -> None:
    """The test above fails for a lenient parser: but for its flaw each request is in order."""
    with Server(hooks, http="h11") as server:
        lenient = ["length and chunked", "folded header", "bare LF"]
        assert lenient == [kind for kind in MALFORMED if _taken(server.port, kind)]
    assert not is_empty(database)


HOSTS = [b"a/../b", b"@", b"", b"[", b"\xff", b"evil.test:99999", b"a b", b"a?b#c"]


@pytest.mark.parametrize("mounted", [False, True])
def test_malformed_host(hooks: Hooks, database: Path, mounted: bool, http: str) -> None:
    """A Host header that is none changes nothing of where a delivery goes."""
    app: Any = hooks
    path = "/"
    if mounted:
        app = Starlette(routes=hooks.routes("/hooks"), lifespan=hooks.lifespan)
        path = "/hooks"
    with Server(app, http=http) as server:
        for host in HOSTS:
            for where, status in ((path, 204), ("/hooks/../x", 400)):
                request = signed().replace(b"host", host)
                request.path = where
                assert status == parse_reply(exchange(server.port, raw(request))).status
    assert len(HOSTS) == count(database, "hooks_events")


# Clients that go away.


@pytest.fixture
def effects(hooks: Hooks) -> None:
    @hooks.on("*", name="effect")
    def effect(event: Event, session: Session) -> None:
        session.execute(text("CREATE TABLE IF NOT EXISTS effects (event_id TEXT)"))
        session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Keep every commit waiting."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def _hang_up(connection: socket.socket, *, rudely: bool) -> None:
    if rudely:  # with a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the tracebacks in the log, and the errors other than that a commit has failed."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.exc_info
        or (record.levelno >= logging.ERROR and not record.getMessage().startswith("a commit"))
    ]


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_hanging_up_within_the_body(
    hooks: Hooks,
    server: Server,
    database: Path,
    framing: str,
    rudely: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that goes away in the middle of its body leaves nothing, in the log neither."""
    request = signed()
    if framing == "chunked":
        request.without(b"content-length").headers.append((b"transfer-encoding", b"chunked"))
        request.body = b"%x\r\n" % len(request.body) + request.body
    connection = connect(server.port)
    connection.sendall(raw(request)[:-10])
    wait_for(lambda: server.busy)
    _hang_up(connection, rudely=rudely)
    wait_for(lambda: not server.busy)
    assert 1 == _counts(hooks)["rejected.disconnected"]
    assert [] == _alarms(caplog)
    assert is_empty(database)
    assert _delivers(server.port)


@pytest.mark.parametrize("rudely", [False, True])
def test_hanging_up_before_the_answer(
    hooks: Hooks,
    effects: None,
    server: Server,
    database: Path,
    rudely: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that does not wait for the answer: its event is stored, and handled once."""
    body = make_event("a.b", id="evt_1")
    with _locked(database):
        connection = connect(server.port)
        connection.sendall(raw(signed(body), close=False))
        wait_for(lambda: server.busy)
        _hang_up(connection, rudely=rudely)
    assert _delivers(server.port, body)  # it tries again, as senders do
    wait_for(lambda: rows(database, "SELECT id FROM hooks_jobs WHERE state = 'succeeded'"))
    assert ["evt_1"] == stored_ids(database)
    assert 1 == count(database, "effects")
    assert [] == _alarms(caplog)


@pytest.mark.parametrize("rudely", [False, True])
def test_hanging_up_before_a_refusal(
    hooks: Hooks, server: Server, database: Path, rudely: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that has gone when it is refused leaves no traceback in the log."""
    with _locked(database):
        connection = connect(server.port)
        connection.sendall(raw(signed(), close=False))
        wait_for(lambda: server.busy)
        _hang_up(connection, rudely=rudely)
        wait_for(lambda: not server.busy)
    assert 1 == _counts(hooks)["rejected.unavailable"]
    assert [] == _alarms(caplog)
    assert _delivers(server.port)


def test_alarms_would_show_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The looks at the log above fail for an app that raises when its client has gone."""

    async def careless(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            json.loads(message["body"])

    with Server(careless, lifespan="off") as server:
        connection = connect(server.port)
        connection.sendall(raw(signed())[:-10])
        _hang_up(connection, rudely=True)
        wait_for(lambda: _alarms(caplog))
