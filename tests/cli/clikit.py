"""A shop whose webhooks the commands are tried on, and its server in a process of its own."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from animica_hooks import Hooks
from animica_hooks.core.signature import sign

SECRET = "whsec_CANARY-of-the-command-line-tests"
PATIENCE_S = 30.0

SHOP = """
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks import Event, Hooks, RetryPolicy

hooks = Hooks(routers=[], retry=RetryPolicy(max_attempts=1), body_deadline=60)


@hooks.on("order.paid", name="book")
async def book(event: Event, session: AsyncSession) -> None:
    await session.execute(text("CREATE TABLE IF NOT EXISTS booked (id TEXT)"))
    await session.execute(text("INSERT INTO booked VALUES (:id)"), {"id": event.id})


@hooks.on("order.lost", name="fail")
async def fail(event: Event, session: AsyncSession) -> None:
    raise ValueError("\\x1b[31m[red]lost")


@hooks.on("order.mailed", name="mail")
async def mail(event: Event) -> None:
    pass
"""


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """Return the first true thing that ``look`` returns."""
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}")


def body_of(id: str, type: str, **data: object) -> bytes:
    return json.dumps({"id": id, "type": type, "created": 1_900_000_000, "data": data}).encode()


def signed(body: bytes) -> str:
    return sign(body, SECRET, timestamp=int(time.time()))


async def deliver(hooks: Hooks, body: bytes) -> int:
    """Deliver in-process; return the status."""
    headers = [
        (b"x-animica-signature", signed(body).encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    scope = {"type": "http", "method": "POST", "path": "/", "root_path": "", "headers": headers}
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    await hooks(scope, receive, send)
    return statuses[0]


def stock(hooks: Hooks, bodies: list[bytes]) -> None:
    """Have an app receive, and handle, what is delivered."""

    async def work() -> None:
        async with hooks.lifespan():
            for body in bodies:
                assert 204 == await deliver(hooks, body)
            while hooks.settings.dispatch:
                stats = await hooks.stats()
                if stats.available + stats.leased == 0:
                    break
                await asyncio.sleep(0.01)

    asyncio.run(work())


class Process:
    """The command line in a process of its own; killed at the end of the block."""

    def __init__(
        self, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = cwd / f"{arguments[0]}-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "animica_hooks", *arguments],
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.popen.kill()
        self.popen.wait()

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def port(self) -> int:
        """Wait until it listens; return the port."""

        def look() -> int | None:
            assert self.popen.poll() is None, self.said()
            found = re.search(r"receiving at http://[^ ]*:(\d+) ", self.said())
            return int(found[1]) if found else None

        port: int = wait_for(look, "the server listens")
        return port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port()), timeout=PATIENCE_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit code and after how many seconds it came."""
        began = time.monotonic()
        self.popen.send_signal(number)
        code = self.popen.wait(PATIENCE_S)
        return code, time.monotonic() - began


def head(body: bytes, *, length: int | None = None, signature: str | None = None) -> bytes:
    """Return the head of a delivery; by default one that is to be taken."""
    return (
        b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
        + f"X-Animica-Signature: {signed(body) if signature is None else signature}\r\n".encode()
        + f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode()
    )


def read_to_end(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def read_answer(connection: socket.socket) -> bytes:
    """Return the head of the next answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, f"closed after {received!r}"
        received += chunk
    return received


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])
