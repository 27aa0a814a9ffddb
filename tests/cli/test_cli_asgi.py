"""``serve`` as a server of any ASGI app, tried over raw sockets on a server in its own process."""

import ast
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from clikit import PATIENCE_S, Process, read_answer, read_to_end, status_of

APP = """
import asyncio
import contextvars

seen = contextvars.ContextVar("seen", default="nothing")
told = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["shared"] = "yes"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    name = scope["path"].strip("/").replace("/", "_") or "echo"
    await globals()[name](scope, receive, send)


async def start(send, status=200, **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def body(send, body=b"", more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def text(send, text, status=200):
    await start(send, status, content_length=str(len(text)))
    await body(send, text.encode())


async def read(receive):
    whole, pieces, more = b"", 0, True
    while more:
        message = await receive()
        whole, pieces, more = whole + message["body"], pieces + 1, message["more_body"]
    return whole


async def echo(scope, receive, send):
    await text(send, (await read(receive)).decode())


async def about(scope, receive, send):
    scope["state"]["own"] = scope["state"].get("own", 0) + 1
    known = {key: scope[key] for key in sorted(scope) if key not in ("headers", "client", "server")}
    await text(send, repr([known, scope["headers"]]))


async def task(scope, receive, send):
    found, _ = seen.get(), seen.set("something")
    await text(send, f"{asyncio.current_task() in asyncio.all_tasks()} {found}")


async def late(scope, receive, send):
    await start(send)
    await asyncio.sleep(600)


async def pieces(scope, receive, send):
    await start(send)
    for piece in (b"one", b"", b"three"):
        await body(send, piece, more=True)
        await asyncio.sleep(0)
    await body(send)


async def early_error(scope, receive, send):
    await start(send, content_length="5")
    raise ValueError("too early")


async def late_error(scope, receive, send):
    await start(send, content_length="5")
    await body(send, b"ab", more=True)
    raise ValueError("too late")


async def silent(scope, receive, send):
    pass


async def half(scope, receive, send):
    await start(send)


async def split(scope, receive, send):
    await start(send, x="a\\r\\nSet-Cookie: b")
    await body(send)


async def too_much(scope, receive, send):
    await start(send, content_length="1")
    await body(send, b"ab")


async def twice(scope, receive, send):
    await text(send, "once")
    try:
        await body(send)
    except RuntimeError:
        told.append("refused")


async def large(scope, receive, send):
    told.clear()
    await start(send, content_length=str(64 * 1024 * 1024))
    for _ in range(64):
        await body(send, b"x" * 1024 * 1024, more=True)
        told[:] = [str(int((told or ["0"])[0]) + 1)]
    await body(send)


async def slowly(scope, receive, send):
    await asyncio.sleep(0.3)
    await echo(scope, receive, send)


async def leave(scope, receive, send):
    told.clear()
    await read(receive)
    both = await asyncio.gather(receive(), receive())
    await text(send, "nobody")
    told.extend(message["type"] for message in both)


async def tell(scope, receive, send):
    await text(send, " ".join(told))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that the tests of this module share."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "served.py").write_text(APP)
    with Process("serve", "served:app", "--port", "0", "--keep-alive", "2", cwd=folder) as running:
        yield running


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: app", *lines, "", ""]).encode()


def content(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def read_whole(connection: socket.socket) -> bytes:
    """Return the next answer, whose head tells its length."""
    received = read_answer(connection)
    found = re.search(rb"\r\ncontent-length: (\d+)\r\n", received)
    assert found, received
    while len(content(received)) < int(found[1]):
        chunk = connection.recv(65536)
        assert chunk, "closed"
        received += chunk
    return received


def ask(server: Process, path: str, *lines: str, method: str = "GET") -> bytes:
    """Ask for one thing, with a connection of its own, and return all that came."""
    with server.connect() as connection:
        connection.sendall(get(path, "Connection: close", *lines, method=method))
        return read_to_end(connection)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        chunk = connection.recv(65536)
        assert chunk, received
        received += chunk
    return received


def test_an_app_is_told_what_was_asked(server: Process) -> None:
    """The scope is the specification's: decoded path, raw path, query, lower-case header names."""
    ask(server, "/about")
    answer = ask(server, "//about?a=%20b", "X-Two: 2")
    known, headers = ast.literal_eval(content(answer).decode())
    assert {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": "//about",
        "raw_path": b"//about",
        "query_string": b"a=%20b",
        "root_path": "",
        "scheme": "http",
        "state": {"shared": "yes", "own": 1},
    } == known
    assert [(b"host", b"app"), (b"connection", b"close"), (b"x-two", b"2")] == headers


@pytest.mark.parametrize("target", ["http://app/ab%6Fut?q", "/ab%6Fut?q#part"])
def test_other_forms_of_targets_are_understood(server: Process, target: str) -> None:
    """A whole URL is as good as a path, and a fragment is not part of either."""
    known, _ = ast.literal_eval(content(ask(server, target)).decode())
    assert ("/about", b"/ab%6Fut", b"q") == (
        known["path"],
        known["raw_path"],
        known["query_string"],
    )


def test_each_request_has_a_task_and_a_context_of_its_own(server: Process) -> None:
    """Nothing that a request leaves in its context reaches the next on the same connection."""
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(get("/task"))
            assert b"True nothing" == content(read_whole(connection))


def test_an_answer_in_pieces_is_chunked(server: Process) -> None:
    """Without a length each piece is a chunk, and none is taken for the end."""
    answer = ask(server, "/pieces")
    assert b"\r\ntransfer-encoding: chunked\r\n" in answer
    assert b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n" == content(answer)


def test_a_head_does_not_wait_long_for_its_body(server: Process) -> None:
    """A stream whose first event is to come has its head sent."""
    with server.connect() as connection:
        connection.sendall(get("/late"))
        assert 200 == status_of(read_until(connection, b"\r\n\r\n"))


def test_head_has_the_head_and_no_body(server: Process) -> None:
    """The length is that of GET, and the connection goes on."""
    with server.connect() as connection:
        connection.sendall(get("/task", method="HEAD") + get("/task", "Connection: close"))
        answers = read_to_end(connection)
    assert 2 == answers.count(b"HTTP/1.1 200 OK\r\n")
    assert re.search(rb"content-length: \d+\r\n\r\nHTTP/1.1 200 OK\r\n", answers)


def test_a_client_that_waits_is_told_to_continue(server: Process) -> None:
    """100 comes before the body, once, and only for who asks for it."""
    head = get("/", "Expect: 100-continue", "Content-Length: 4", method="POST")
    with server.connect() as connection:
        connection.sendall(head)
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == connection.recv(65536)
        connection.sendall(b"bo")
        connection.sendall(b"dy")
        assert b"body" == content(read_whole(connection))
        connection.sendall(head + b"body")
        assert 200 == status_of(read_whole(connection))


@pytest.mark.parametrize("path", ["/early_error", "/silent", "/half", "/split", "/too_much"])
def test_a_failure_before_the_body_is_answered_500(server: Process, path: str) -> None:
    """As nothing of the answer has left, there is another."""
    answer = ask(server, path)
    assert 500 == status_of(answer)
    assert b"Internal Server Error" == content(answer)
    assert 1 == answer.count(b"HTTP/1.1")


def test_a_failure_amid_the_body_ends_the_connection(server: Process) -> None:
    """An answer that is cut off can not be taken for a whole one."""
    with server.connect() as connection:
        connection.sendall(get("/late_error"))
        assert b"ab" == content(read_to_end(connection))


def test_nothing_follows_an_answer(server: Process) -> None:
    """What an app sends after its answer is refused, and the connection stays good."""
    with server.connect() as connection:
        connection.sendall(get("/twice"))
        assert b"once" == content(read_whole(connection))
        connection.sendall(get("/tell"))
        assert b"refused" in content(read_whole(connection))


def test_a_body_in_many_pieces_is_read_whole(server: Process) -> None:
    """Bytes that arrive one by one, and faster than the app reads, are all there, in order."""
    body = bytes(range(48, 122)) * 10_000
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:3], body[3:]))
    with server.connect() as connection:
        connection.sendall(get("/slowly", "Transfer-Encoding: chunked", method="POST"))
        for byte in chunks[:40]:
            connection.sendall(bytes([byte]))
        connection.sendall(chunks[40:] + b"0\r\nX-Trailer: x\r\n\r\n")
        assert body == content(read_whole(connection))
        connection.sendall(get("/about"))
        assert b"trailer" not in read_whole(connection)


def test_what_is_pipelined_behind_a_slow_request_is_answered(server: Process) -> None:
    """Many requests, more than are read at a time, wait for their turn."""
    count = 20_000
    requests = (get("/", "Content-Length: 2", method="POST") + b"ok") * count
    with server.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.sendall(get("/slowly"))
        sent = pool.submit(connection.sendall, requests + get("/task", "Connection: close"))
        answers = read_to_end(connection)
        sent.result()
    assert count + 2 == answers.count(b"HTTP/1.1 200 OK\r\n")


def test_a_head_behind_a_large_body_is_not_too_large(server: Process) -> None:
    """Only a head's own bytes count, whatever arrived with them; and all of its own do."""
    body = b"x" * 200_000
    post = get("/", f"Content-Length: {len(body)}", method="POST") + body
    behind = get("/task", "X: " + "x" * 30_000)
    with server.connect() as connection:
        connection.sendall(post + behind[:-15_000])
        assert body == content(read_whole(connection))
        connection.sendall(behind[-15_000:])
        assert 200 == status_of(read_whole(connection))
        connection.sendall(get("/") + get("/task", "X: " + "x" * 70_000))
        assert 1 == read_to_end(connection).count(b"HTTP/1.1 200 OK\r\n")


def test_what_waits_for_its_turn_is_not_taken_without_end(server: Process) -> None:
    """A client that asks and asks, and gets no answer yet, is not read from for long."""
    requests = (get("/", "Content-Length: 60000", method="POST") + b"x" * 60_000) * 1_000
    with server.connect() as connection:
        connection.sendall(get("/late"))
        read_until(connection, b"\r\n\r\n")
        connection.settimeout(2)
        with pytest.raises(TimeoutError):
            connection.sendall(requests)


def test_whole_requests_are_answered_whatever_follows(server: Process) -> None:
    """Garbage behind several requests ends the connection only after their answers."""
    with server.connect() as connection:
        connection.sendall(get("/slowly") + get("/task") + get("/task") + b"\0garbage\r\n\r\n")
        answers = read_to_end(connection)
    assert 3 == answers.count(b"HTTP/1.1 200 OK\r\n")
    assert 3 == answers.count(b"HTTP/1.1")


def test_an_app_waits_for_a_client_that_does_not_read(server: Process) -> None:
    """What is sent to a client that reads nothing does not pile up."""
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(get("/large"))
        read_until(connection, b"x")
        time.sleep(0.3)
        assert int(content(ask(server, "/tell"))) < 32
        received = 0
        while chunk := connection.recv(1 << 20):
            received += len(chunk)
            if received >= 64 * 1024 * 1024 - 1:
                break
        assert b"64" == content(ask(server, "/tell"))


def test_an_app_is_told_that_its_client_has_gone(server: Process) -> None:
    """Whoever waits in ``receive`` is told, and what is sent after that goes nowhere."""
    with server.connect() as other:
        with server.connect() as connection:
            connection.sendall(get("/leave"))
            time.sleep(0.1)
        give_up_at = time.monotonic() + PATIENCE_S
        found = b""
        while b"disconnect" not in found and time.monotonic() < give_up_at:
            other.sendall(get("/tell"))
            found = content(read_whole(other))
    assert b"http.disconnect http.disconnect" == found


def test_an_idle_connection_is_closed_in_time(server: Process) -> None:
    """A client that asks for nothing more keeps its connection for as long as it may, no longer."""
    with server.connect() as connection:
        connection.sendall(get("/task"))
        read_whole(connection)
        began = time.monotonic()
        assert b"" == connection.recv(1)
        assert 1.9 < time.monotonic() - began < 12


def test_an_upgrade_that_is_not_offered_is_a_plain_request(server: Process) -> None:
    """The request is answered in the protocol that it came in."""
    with server.connect() as connection:
        connection.sendall(get("/task", "Connection: Upgrade", "Upgrade: h2c"))
        assert 200 == status_of(read_whole(connection))
        connection.sendall(get("/task"))
        assert 200 == status_of(read_whole(connection))


@pytest.mark.parametrize("framing", ["Content-Length: {}", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_request_that_asks_to_upgrade_keeps_its_body(
    server: Process, framing: str, apart: bool
) -> None:
    """Its body is its own, never the next request; and what is pipelined behind it is answered."""
    body = get("/about", "X: smuggled")
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if "chunked" in framing else body
    asks = "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", framing.format(len(body))
    request = get("/", *asks, method="POST")
    with server.connect() as connection:
        connection.sendall(request if apart else request + sent + request[:50])
        if apart:
            time.sleep(0.1)
            connection.sendall(sent + request[:50])
        assert body == content(read_whole(connection))
        connection.sendall(request[50:] + sent + get("/task", "Connection: close"))
        answers = read_to_end(connection)
    assert content(answers).startswith(body)
    assert 2 == answers.count(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("target", ["app:80", "/"])
def test_nothing_is_tunnelled(server: Process, target: str) -> None:
    """What follows on a CONNECT is nobody's request."""
    with server.connect() as connection:
        connection.sendall(get(target, method="CONNECT") + get("/task"))
        answers = read_to_end(connection)
    assert 400 == status_of(answers)
    assert 1 == answers.count(b"HTTP/1.1")


def test_http_1_0_is_answered_and_closed(server: Process) -> None:
    """Who speaks 1.0 has its answer ended by the end of the connection."""
    with server.connect() as connection:
        connection.sendall(b"GET /task HTTP/1.0\r\n\r\n")
        answer = read_to_end(connection)
    assert 200 == status_of(answer)
    assert b"\r\nconnection: close\r\n" in answer
