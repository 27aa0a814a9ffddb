"""What the tests of the receiver share: requests, answers, servers, a look at what is stored."""

import asyncio
import gc
import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import uvicorn
from databases import engine_of, wait_for_port
from sqlalchemy import Connection, make_url

from animica_hooks.cli import connection, server
from animica_hooks.testing import make_event, sign

SECRET = "whsec_CANARY-for-the-tests-of-the-receiver"
OTHER_SECRET = "whsec_CANARY-of-somebody-else-altogether"
_TESTS = Path(__file__).parent.parent
PATIENCE_S = 20.0  # how long a test waits for what should happen at once

Header = tuple[bytes, bytes]
Database = Path | str  # an SQLite file, or the URL of a database on a server
App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, str]:
        """What an error's body says."""
        decoded = json.loads(self.body)
        assert {"error"} == set(decoded)
        error: dict[str, str] = decoded["error"]
        assert {"message", "type", "code"} == set(error)
        return error

    @property
    def code(self) -> str:
        return self.error["code"] if self.body else ""


@dataclass(slots=True)
class Request:
    """A request, as a server hands it to an app. ``signed`` makes one that is in order."""

    body: bytes
    headers: list[Header]
    method: str = "POST"
    path: str = "/"
    root_path: str = ""
    chunks: Sequence[bytes] | None = None
    stalls: bool = False
    reads: int = 0
    answered: Callable[[int], None] | None = None

    @property
    def scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": self.root_path,
            "query_string": b"",
            "headers": self.headers,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "state": {},
        }

    def replace(self, name: bytes, value: bytes) -> Self:
        """Give a header another value."""
        self.headers = [(n, v) for n, v in self.headers if n != name] + [(name, value)]
        return self

    def without(self, name: bytes) -> Self:
        self.headers = [(n, v) for n, v in self.headers if n != name]
        return self


def signed(
    body: bytes | None = None, *, secret: str = SECRET, timestamp: int | None = None
) -> Request:
    """Return a delivery as the provider sends it; of a new event unless given its body."""
    body = make_event("payment.succeeded", {"amount": 4200}) if body is None else body
    signature = sign(body, secret, timestamp=timestamp).encode()
    return Request(
        body,
        [
            (b"host", b"hooks.test"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-animica-signature", signature),
        ],
    )


async def ask(app: App, request: Request) -> Reply:
    """Call an app with a request, as a server does, and return its answer."""
    chunks = [request.body] if request.chunks is None else list(request.chunks)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        request.reads += 1
        if chunks:
            return {
                "type": "http.request",
                "body": chunks.pop(0),
                "more_body": bool(chunks) or request.stalls,
            }
        if request.stalls:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and request.answered:
            request.answered(message["status"])
        sent.append(message)

    async with asyncio.timeout(PATIENCE_S):
        await app(request.scope, receive, send)
    start, *rest = sent
    assert "http.response.start" == start["type"]
    return Reply(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in rest),
    )


async def deliver(app: App, body: bytes | None = None, path: str = "/") -> Reply:
    """Deliver an event as the provider does."""
    request = signed(body)
    request.path = path
    return await ask(app, request)


def url(database: Database) -> str:
    return database if isinstance(database, str) else f"sqlite:///{database}"


def rows(database: Database, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Read the database as any other program does."""
    if isinstance(database, str):
        with _connected(database) as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def write(database: Database, statement: str) -> None:
    """Change the database as any other program does."""
    with _connected(url(database)) as connection:
        connection.exec_driver_sql(statement)


@contextmanager
def _connected(database: str) -> Iterator[Connection]:
    engine = engine_of(make_url(database).drivername, database)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def set_schema(database: Path, version: str) -> None:
    """Make a database one of another version of the package."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE hooks_version SET version_num = ?", [version])
        connection.commit()


def spoil(database: Path, content: bytes = b"It was a dark and stormy night. " * 100) -> None:
    """Make a file that is no database."""
    database.write_bytes(content)


def stored_ids(database: Database) -> list[str]:
    return [id for (id,) in rows(database, "SELECT id FROM hooks_events ORDER BY seq")]


def count(database: Database, table: str) -> int:
    [(found,)] = rows(database, f"SELECT count(*) FROM {table}")
    return int(found)


def is_empty(database: Database) -> bool:
    """Tell whether nothing that was delivered has left a trace."""
    tables = ("hooks_events", "hooks_jobs", "hooks_quarantine", "hooks_redeliveries")
    return not any(count(database, table) for table in tables)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for a condition, in a thread."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.005)


class Server:
    """An app behind uvicorn in a thread, at a port of its own.

    Args:
        http: what parses requests: one of uvicorn's parsers, or ``serve``, as of the command line.
    """

    def __init__(self, app: Any, *, http: str = "httptools", **options: Any) -> None:
        self._at_end = ExitStack()
        if http == "serve":
            # What it changes for the whole process, which elsewhere is its own.
            self._at_end.callback(gc.unfreeze)
            self._at_end.callback(gc.set_threshold, *gc.get_threshold())
            for name in ("uvicorn.error", "uvicorn.asgi"):
                log = logging.getLogger(name)
                self._at_end.callback(log.setLevel, log.level)
            config = connection.Config(app, connection.Limits(), proxy_headers=False)
            self._server: uvicorn.Server = server.Server(
                config, on_start=lambda: None, on_stop=lambda: None
            )
        else:
            options = {"lifespan": "on", "timeout_graceful_shutdown": 5, **options}
            self._server = uvicorn.Server(
                uvicorn.Config(app, http=http, log_config=None, access_log=False, **options)
            )
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started, "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        self._at_end.close()
        assert not self._thread.is_alive(), "the server did not stop"

    @property
    def busy(self) -> int:
        """How many requests are under way."""
        return len(self._server.server_state.tasks)


class Process:
    """An app of ``served`` behind uvicorn, or ``animica-hooks serve``, in a process of its own."""

    def __init__(self, app: str, database: Path, *, http: str = "httptools") -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        command = ["uvicorn", f"served:{app}", "--fd", str(self._socket.fileno()), "--http", http,
                   "--log-level", "warning", "--timeout-graceful-shutdown", "5"]  # fmt: skip
        if http == "serve":
            self._socket.close()
            command = ["animica_hooks", "serve", f"served:{app}", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=Path(__file__).parent,
            env={**os.environ, "DATABASE_URL": url(database), "PYTHONPATH": str(_TESTS)},
            pass_fds=[] if http == "serve" else [self._socket.fileno()],
        )

    def __enter__(self) -> Self:
        wait_for_port(self.port)
        exchange(self.port, b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._socket.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def peak_memory(self) -> int:
        """The most bytes it has had resident, so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(kilobytes) * 1024


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def exchange(port: int, *pieces: bytes) -> bytes:
    """Send bytes as they are, and return all that is answered until the connection ends."""
    with connect(port) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side ends the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass  # what it had answered before it stopped reading has been received
    return received


def raw(request: Request, *, close: bool = True) -> bytes:
    """Return a request as the bytes that a client sends."""
    headers = [*request.headers, (b"connection", b"close")] if close else request.headers
    return head(request.method, request.path, headers) + request.body


def head(method: str, path: str, headers: Iterable[Header]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), *(n + b": " + v for n, v in headers)]
    return b"\r\n".join([*lines, b"", b""])


def parse_reply(received: bytes) -> Reply:
    """Read a reply; what follows its head is its body."""
    start, _, body = received.partition(b"\r\n\r\n")
    status, *lines = start.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Reply(int(status.split()[1]), headers, body)
