"""The limits of ``serve``, tried over raw sockets on a server in a process of its own."""

import asyncio
import contextlib
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clikit import (
    PATIENCE_S,
    SECRET,
    SHOP,
    Process,
    body_of,
    head,
    read_answer,
    read_to_end,
    status_of,
    wait_for,
)
from uvicorn.server import ServerState

from animica_hooks import Hooks
from animica_hooks.cli.connection import MAX_LINGERING, Config, Connection, Limits
from animica_hooks.cli.server import bind

HEAD_TIMEOUT_S = 1.0
GUARDED = """
from animica_hooks import Hooks


class Guarded(Hooks):
    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b""})


hooks = Guarded()
"""


def start(cwd: Path, *options: str, shop: str = SHOP) -> Process:
    """Serve the shop at a free port."""
    (cwd / "shop.py").write_text(shop)
    environment = {
        "ANIMICA_HOOKS_SIGNING_SECRET": SECRET,
        "ANIMICA_HOOKS_DATABASE_URL": f"sqlite:///{cwd / 'shop.db'}",
    }
    return Process("serve", "shop:hooks", "--port", "0", *options, cwd=cwd, environment=environment)


def ask_and_do_not_read(connection: socket.socket) -> None:
    """Ask until nothing more is taken, for the answers are not read."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(1)
    requests = b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n" * 1_000
    with contextlib.suppress(TimeoutError, ConnectionError):
        while True:
            connection.sendall(requests)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that the tests of this module share, with a short deadline for heads."""
    with start(tmp_path_factory.mktemp("shop"), "--head-timeout", str(HEAD_TIMEOUT_S)) as running:
        yield running


def trickle(connection: socket.socket, piece: bytes) -> bytes:
    """Send a piece again and again, until the server closes; return what it answered."""
    connection.settimeout(0.05)
    give_up_at = time.monotonic() + PATIENCE_S
    received = b""
    while time.monotonic() < give_up_at:
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            connection.sendall(piece)
            continue
        if not chunk:
            return received
        received += chunk
    raise AssertionError("it was never closed")


@pytest.mark.parametrize("start", [b"", b"POST / HTTP/1.1\r\nHost: sh"], ids=["silent", "stuck"])
def test_a_head_that_does_not_arrive_is_answered_408(server: Process, start: bytes) -> None:
    """A connection that sends nothing, or half a head, is answered 408 and closed in time."""
    with server.connect() as connection:
        began = time.monotonic()
        connection.sendall(start)
        answer = read_to_end(connection)
    assert 408 == status_of(answer)
    assert b'"code": "head_timeout"' in answer
    assert HEAD_TIMEOUT_S * 0.9 < time.monotonic() - began < HEAD_TIMEOUT_S + 10


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"POST / HTTP/1.1\r\nHost: sh", b"o"),
        (b"", b"\r\n"),
        (b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\nGET /health HTTP/1.1\r\nX: ", b"x"),
    ],
    ids=["header", "blank lines", "second request"],
)
def test_a_slow_head_gets_no_more_time_with_each_byte(
    server: Process, begin: bytes, piece: bytes
) -> None:
    """The deadline is for the whole head, also of what comes before or after a request."""
    with server.connect() as connection:
        connection.sendall(begin)
        answers = trickle(connection, piece)
    assert 408 == status_of(answers[answers.rindex(b"HTTP/1.1 ") :])


def test_an_idle_connection_may_wait_longer_than_a_head(server: Process) -> None:
    """The deadline for a head begins with its first byte, not with the end of the answer before."""
    body = body_of("evt_idle", "order.paid")
    with server.connect() as connection:
        connection.sendall(head(body) + body)
        assert 204 == status_of(read_answer(connection))
        connection.settimeout(HEAD_TIMEOUT_S * 2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE_S)
        connection.sendall(head(body) + body)
        assert 204 == status_of(read_answer(connection))


@pytest.mark.parametrize(
    "lines",
    [
        b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        b"X: x\r\n" * 12_000 + b"\r\n",
        b"X: " + b"x" * 400_000,
    ],
    ids=["one long", "many", "never ending"],
)
def test_a_head_over_64_kib_is_answered_431(server: Process, lines: bytes) -> None:
    """Headers over the limit are refused, in one field or many, whole or not."""
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: shop\r\n" + lines)
        answer = read_to_end(connection)
    assert 431 == status_of(answer)
    assert b"invalid_signature" not in answer


def test_a_long_target_is_a_head_over_the_limit_too(server: Process) -> None:
    """The request line counts."""
    with server.connect() as connection:
        connection.sendall(b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert 431 == status_of(read_to_end(connection))


def test_trailers_without_an_end_are_cut_off(server: Process) -> None:
    """What the parser holds back is bounded after a chunked body as well."""
    body = body_of("evt_trailers", "order.paid")
    plain = head(body).replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    with server.connect() as connection:
        connection.sendall(plain + b"%x\r\n%s\r\n0\r\nX: " % (len(body), body) + b"x" * 600_000)
        assert 431 == status_of(read_to_end(connection))


def test_a_head_below_the_limit_is_taken(server: Process) -> None:
    """60 KiB of headers are no reason to refuse."""
    body = body_of("evt_large_head", "order.paid")
    large = head(body).replace(b"Host: shop\r\n", b"Host: shop\r\nX: " + b"x" * 60_000 + b"\r\n")
    with server.connect() as connection:
        connection.sendall(large + body)
        assert 204 == status_of(read_answer(connection))


MALFORMED = {
    "length and chunked": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "folded header": b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"X: a\nY: b\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "CR": b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
    "bad chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("lines", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_http_is_answered_400(server: Process, lines: bytes) -> None:
    """What two parsers could read differently is refused, even where its signature is good."""
    signature = next(line for line in head(b"").split(b"\r\n") if line.startswith(b"X-Animica"))
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: shop\r\n" + signature + b"\r\n" + lines)
        answer = read_to_end(connection)
    assert 400 == status_of(answer)
    assert b'"code": "malformed_request"' in answer


def test_a_request_gets_its_own_answer_whatever_follows(server: Process) -> None:
    """Garbage behind a whole delivery does not turn its 204 into a 400."""
    body = body_of("evt_then_garbage", "order.paid")
    with server.connect() as connection:
        connection.sendall(head(body) + body + b"\0garbage\r\n\r\n")
        answer = read_to_end(connection)
    assert 204 == status_of(answer)
    assert 1 == answer.count(b"HTTP/1.1")


def test_pipelined_requests_are_answered_in_order(server: Process) -> None:
    """Requests that are sent without waiting each have their answer."""
    body = body_of("evt_pipelined", "order.paid")
    health = b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n"
    last = health.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head(body) + body + health + last)
        answers = read_to_end(connection)
    statuses = [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert [204, 200, 200] == statuses


def test_many_pipelined_deliveries_are_each_answered(server: Process) -> None:
    """However many wait for their turn, good and bad, and however late their answers are read."""
    forged = (head(b"{}") + b"[]") * 1000
    good = [body_of(f"evt_pipelined_{n}", "order.paid") for n in range(500)]
    requests = [forged, *[head(body) + body for body in good]]
    last = b"GET /health HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
    with server.connect() as connection, ThreadPoolExecutor() as beside:
        sending = beside.submit(connection.sendall, b"".join([*requests, last]))
        time.sleep(0.5)
        answers = read_to_end(connection)
        sending.result()
    statuses = [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert [400] * 1000 + [204] * 500 + [200] == statuses


def test_answers_tell_the_time(server: Process) -> None:
    """Heads that are made once and sent again have the date of their second."""
    dates = set()
    for n in range(3):
        body = body_of(f"evt_dated_{n}", "order.paid")
        with server.connect() as connection:
            connection.sendall(head(body) + body)
            answer = read_answer(connection)
        assert 204 == status_of(answer)
        dates.add(answer.split(b"date: ")[1].split(b"\r\n")[0])
        time.sleep(1.1)
    assert 3 == len(dates)


def test_a_failure_of_ours_is_answered_500(tmp_path: Path) -> None:
    """The client is told, and the next one is answered as ever."""
    failing = """
from animica_hooks import Hooks

class Failing(Hooks):
    def _take(self, method, path, headers, body, answer):
        if b"evt_fail" in body:
            raise RuntimeError("planted")
        return super()._take(method, path, headers, body, answer)
"""
    (tmp_path / "failing.py").write_text(failing)
    fails, works = body_of("evt_fail", "order.paid"), body_of("evt_works", "order.paid")
    shop = SHOP.replace("Hooks(", "Failing(")
    with start(tmp_path, shop="from failing import Failing\n" + shop) as server:
        with server.connect() as connection:
            connection.sendall(head(fails) + fails + head(works) + works)
            assert 500 == status_of(read_to_end(connection))
        with server.connect() as connection:
            connection.sendall(head(works) + works)
            assert 204 == status_of(read_answer(connection))
        assert "planted" in server.said()


def test_an_answer_reaches_a_client_that_is_still_sending(server: Process) -> None:
    """A refused body is read for a moment, so that the client sees the 413 and not a reset."""
    body = b"x" * 4_000_000
    with server.connect() as connection:
        connection.sendall(head(b"", length=len(body)))
        connection.sendall(body)
        answer = read_to_end(connection)
    assert 413 == status_of(answer)


def test_a_connection_does_not_stay_for_a_body_that_nobody_wants(server: Process) -> None:
    """An answer given before the body arrived ends the connection, however slowly it comes."""
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000\r\n\r\nx")
        assert 405 == status_of(trickle(connection, b"x"))


def test_answers_do_not_name_the_server(server: Process) -> None:
    """No header says what software this is."""
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert b"\r\nserver:" not in read_answer(connection).lower()


def test_strangers_do_not_fill_the_log(server: Process) -> None:
    """Malformed requests, late heads and tracebacks of the server do not appear in the log."""
    with server.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        read_to_end(connection)
    said = server.said()
    assert "Invalid HTTP" not in said
    assert "Traceback" not in said


def test_connections_over_the_cap_are_answered_503(tmp_path: Path) -> None:
    """Silent connections use up the cap; the next is told so at once, until one has gone."""
    with start(tmp_path, "--max-connections", "2") as server, contextlib.ExitStack() as held:
        silent = [held.enter_context(server.connect()) for _ in range(2)]
        for connection in silent:  # answered: so they are counted
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
            assert 200 == status_of(read_answer(connection))
        with server.connect() as refused:
            began = time.monotonic()
            refused.sendall(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
            answer = read_to_end(refused)
        assert 503 == status_of(answer)
        assert b"\r\nretry-after: 2\r\n" in answer
        assert time.monotonic() - began < 8
        silent[0].close()

        def gets_in() -> bool:
            with server.connect() as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
                return status_of(read_answer(connection)) == 200

        assert wait_for(gets_in, "there is room again")


def test_sigterm_is_not_held_up_by_a_stuck_body(tmp_path: Path) -> None:
    """A body that never ends is answered 503 when the grace is over, and the server is gone."""
    body = body_of("evt_stuck", "order.paid")
    with start(tmp_path, "--grace", "1") as server, server.connect() as connection:
        connection.sendall(head(body) + body[:10])
        with server.connect() as other:  # what was sent before it has arrived
            other.sendall(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
            read_answer(other)
        code, seconds = server.stop()
        assert 503 == status_of(read_to_end(connection))
        assert 0 == code, server.said()
        assert seconds < 20
        assert "Traceback" not in server.said()


def test_a_call_of_a_subclass_is_called(tmp_path: Path) -> None:
    """What it adds to each request is not passed by."""
    body = body_of("evt_1", "order.paid")
    with start(tmp_path, shop=GUARDED) as server, server.connect() as connection:
        connection.sendall(head(body) + body)
        assert 403 == status_of(read_answer(connection))


def test_sigterm_is_not_held_up_by_clients_that_do_not_read(tmp_path: Path) -> None:
    """Whoever takes none of its answers is hung up on when the grace is over, without an alarm."""
    with start(tmp_path, "--grace", "1") as server, server.connect() as connection:
        ask_and_do_not_read(connection)
        code, seconds = server.stop()
        assert 0 == code, server.said()
        assert seconds < 20
        said = server.said()
    assert "Traceback" not in said
    assert "uvicorn" not in said


class _Held(asyncio.Transport):
    """Does not get rid of what is written to it."""

    def write(self, data: object) -> None: ...

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False


async def test_a_client_that_is_refused_and_does_not_read_is_counted_until_it_has_gone() -> None:
    """What can not be sent keeps its place below the cap, or descriptors would run out."""
    config = Config(Hooks(signing_secret=SECRET), Limits(), proxy_headers=False)
    config.load()
    config.lingering.update(Connection(config, ServerState(), {}) for _ in range(MAX_LINGERING))
    state = ServerState()
    connection = Connection(config, state, {})
    connection.connection_made(_Held())
    connection.data_received(b"\0garbage\r\n\r\n")
    assert connection in state.connections
    connection.connection_lost(None)
    assert not state.connections


def test_connections_whose_clients_do_not_read_end_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would count below the cap for ever."""
    if sys.platform != "linux":
        pytest.skip("the kernel does not see to that")
    monkeypatch.setattr("animica_hooks.cli.server._STALLED_MS", 500)
    [listener] = bind("127.0.0.1", 0)
    with listener, socket.socket() as client:
        listener.listen()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.settimeout(PATIENCE_S)
        with accepted, pytest.raises(TimeoutError, match="Connection timed out"):  # the kernel's
            accepted.sendall(b"x" * (64 << 20))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_server_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Idle connections do not hold it up, what was acknowledged is handled, and the code is 0."""
    body = body_of("evt_before", "order.paid")
    with start(tmp_path) as server, server.connect() as connection:
        connection.sendall(head(body) + body)
        assert 204 == status_of(read_answer(connection))
        code, seconds = server.stop(number)
        assert (0, b"") == (code, connection.recv(1))
        assert seconds < 12
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        states = database.execute("SELECT state FROM hooks_jobs").fetchall()
    assert states in ([("succeeded",)], [("available",)])


def test_sigterm_twice_ends_it_once(tmp_path: Path) -> None:
    """A second SIGTERM, while a body still holds the server, is no crash and no shorter grace."""
    body = body_of("evt_stuck", "order.paid")
    with start(tmp_path, "--grace", "1") as server, server.connect() as connection:
        connection.sendall(head(body) + body[:10])
        with server.connect() as other:  # what was sent before it has arrived
            other.sendall(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
            read_answer(other)
        server.popen.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        code, seconds = server.stop(signal.SIGTERM)
        assert 503 == status_of(read_to_end(connection))
    assert 0 == code, server.said()
    assert seconds < 20
    assert "Traceback" not in server.said()


SLOW_START = """
import asyncio, pathlib, time
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from animica_hooks.store import schema
import shop

upgrade = schema.upgrade


def slowly(connection):
    upgrade(connection)
    pathlib.Path("migrating").touch()
    time.sleep(1)


schema.upgrade = slowly


@asynccontextmanager
async def own(app):
    pathlib.Path("starting").touch()
    await asyncio.sleep(1)
    yield


app = Starlette(routes=shop.hooks.routes("/"), lifespan=shop.hooks.lifespan_with(own))
"""


@pytest.mark.parametrize(
    ("moment", "number"), [("starting", signal.SIGINT), ("migrating", signal.SIGTERM)]
)
def test_a_signal_before_it_listens_ends_it_cleanly(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    """In the app's own start, or in the middle of a migration, of which nothing is left half."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "slow_start.py").write_text(SLOW_START)
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    environment = {
        "ANIMICA_HOOKS_SIGNING_SECRET": SECRET,
        "ANIMICA_HOOKS_DATABASE_URL": url,
    }
    arguments = ("serve", "slow_start:app", "--port", "0")
    with Process(*arguments, cwd=tmp_path, environment=environment) as process:
        wait_for((tmp_path / moment).exists, f"it is {moment}")
        code, seconds = process.stop(number)
    assert code in (0, -number), process.said()
    assert seconds < 20
    assert "Traceback" not in process.said()
    assert "receiving at" not in process.said()

    with start(tmp_path) as server, server.connect() as connection:
        body = body_of("evt_after", "order.paid")
        connection.sendall(head(body) + body)
        assert 204 == status_of(read_answer(connection))
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        assert [("ok",)] == database.execute("PRAGMA integrity_check").fetchall()
