"""A server that is killed, senders that do not give up, and the account taken afterwards."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from databases import engine_of, listens

from animica_hooks.core.job import FINAL
from animica_hooks.store.connect import make_store
from animica_hooks.testing import make_event, sign

FULL = os.environ.get("ANIMICA_HOOKS_TEST_SIZE") == "full"
SECRET = "whsec_CANARY-of-the-crash-tests"
HERE = Path(__file__).resolve().parent
PATIENCE_S = 60.0  # after which a test that waits for something has failed
HANDLERS = ("coroutine", "plain", "outside")
TRANSACTIONAL = ("coroutine", "plain")


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def hang_up(process: "subprocess.Popen[bytes]") -> None:
    """Close the pipe by which the app knows that its test is there."""
    assert process.stdin is not None
    process.stdin.close()


class Place:
    """A database and the processes at it, which come and go.

    Attributes:
        options: more of them, for the server.
        deaths: return codes of the processes that have ended, oldest first.
    """

    def __init__(
        self, folder: Path, kind: str = "sqlite", url: str = "", **environment: str
    ) -> None:
        self.folder = folder
        self.kind = kind
        self.url = url or f"sqlite:///{folder / 'hooks.db'}"
        self._engine = engine_of(kind, self.url)
        self.port = free_port()
        self.environment = environment
        self.options: tuple[str, ...] = ()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.deaths: list[int] = []
        asyncio.run(self._make_tables())

    async def _make_tables(self) -> None:
        store = make_store(self.url, owner="test", lease_s=30, handlers=1)
        await store.open(migrate=True)
        async with store.write("test") as connection:
            await connection.exec_driver_sql("CREATE TABLE effects (handler TEXT, event_id TEXT)")
        await store.close()

    def start(
        self,
        command: str = "serve",
        *,
        app: str = "crash_app:hooks",
        port: int | None = None,
        before: Iterable[str] = (),
        **environment: str,
    ) -> "subprocess.Popen[bytes]":
        """Start the app, as a server or only as a worker."""
        options = ["--port", str(port or self.port), *self.options] if command == "serve" else []
        arguments = ["-m", "animica_hooks", command, app, *options]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*before, sys.executable, *arguments],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
                    "ANIMICA_HOOKS_SIGNING_SECRET": SECRET,
                    "ANIMICA_HOOKS_DATABASE_URL": self.url,
                    "CRASH_FOLDER": str(self.folder),
                    **self.environment,
                    **environment,
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def listens(self) -> bool:
        return listens(self.port)

    def serve(self, **options: Any) -> "subprocess.Popen[bytes]":
        """Start the server, and wait until it can be reached."""
        process = self.start(**options)
        self.wait(lambda: self.listens() or process.poll() is not None, "the server to listen")
        assert process.poll() is None, self.log()
        return process

    def end(self, process: "subprocess.Popen[bytes]", number: signal.Signals) -> int:
        """Send a signal and wait for the end; return the return code."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)  # strace in front of it ignores what it gets itself
        return self.ended(process)

    def ended(self, process: "subprocess.Popen[bytes]") -> int:
        code = process.wait(PATIENCE_S)
        hang_up(process)
        self.processes.remove(process)
        self.deaths.append(code)
        return code

    def close(self) -> None:
        for process in list(self.processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            hang_up(process)
        self._engine.dispose()

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def noted(self, name: str) -> list[str]:
        """Return what the app has written to one of its files."""
        path = self.folder / name
        return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> None:
        """Wait until something is so in other processes."""
        give_up_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up_at, f"waited for {what}\n{self.log()[-5000:]}"
            time.sleep(0.01)

    def query(self, statement: str) -> list[Any]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def to_run(self) -> int:
        """Return how many jobs are not in a final state."""
        final = ",".join(f"'{state}'" for state in sorted(FINAL))
        [(count,)] = self.query(f"SELECT count(*) FROM hooks_jobs WHERE state NOT IN ({final})")
        return int(count)

    def jobs(self, handler: str) -> list[Any]:
        """Return event, state, attempts, failed and reason of a handler's jobs."""
        return self.query(
            "SELECT e.id, j.state, j.attempts, j.failed, j.reason FROM hooks_jobs j"
            " JOIN hooks_events e ON e.seq = j.event_seq JOIN hooks_handlers h"
            f" ON h.id = j.handler_id WHERE h.name = '{handler}' ORDER BY e.id"
        )

    def effects(self, handler: str) -> list[str]:
        return sorted(
            id for (id,) in self.query(f"SELECT event_id FROM effects WHERE handler = '{handler}'")
        )


# Senders


async def request(port: int, body: bytes) -> int:
    """Deliver a body over a connection of its own; return the status, 0 where none came."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(head_of(body) + body)
                line = await reader.readline()
                return int(line.split()[1]) if line.endswith(b"\n") else 0
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, IndexError):
        return 0


def head_of(body: bytes, *, length: int | None = None) -> bytes:
    lines = [
        "POST / HTTP/1.1",
        "Host: localhost",
        f"X-Animica-Signature: {sign(body, SECRET)}",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def insist(port: int, body: bytes) -> None:
    """Deliver a body again and again, as senders do, until it is acknowledged."""
    while await request(port, body) != 204:
        await asyncio.sleep(0.05)


def send(port: int, *bodies: bytes) -> None:
    """Deliver bodies at once, each until it is acknowledged."""

    async def all_of_them() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*[insist(port, body) for body in bodies])

    asyncio.run(all_of_them())


# The harness


@dataclass
class Account:
    """What became of the events that were acknowledged.

    Attributes:
        lost: acknowledged, and not stored.
        unhandled: event and handler that it was not handled by.
        repeated: event and handler whose transactional effect is there more than once.
        missing: event and handler whose transactional effect is not there.
        deliveries: counted by the inbox, repeated ones too.
        again: effects outside of the database that happened more than once.
    """

    acked: int
    kills: int
    lost: list[str] = field(default_factory=list)
    unhandled: list[tuple[str, str]] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    integrity: str = ""
    deliveries: int = 0
    again: int = 0

    @property
    def violations(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("lost", "unhandled", "repeated", "missing")}
        if self.integrity != "ok":
            found["integrity"] = self.integrity
        return {name: what for name, what in found.items() if what}


class Killing:
    """Sends events to a server that is killed at random times and started again.

    Args:
        life: seconds that the server is left alive, at most.
    """

    def __init__(
        self,
        place: Place,
        *,
        events: int,
        kills: int,
        life: float,
        seed: int = 1,
        senders: int = 16,
    ) -> None:
        self.place = place
        self.events = events
        self.kills = kills
        self.life = life
        self.rand = random.Random(seed)
        self.senders = senders
        self.acked: list[str] = []
        self._budget = 0

    async def run(self) -> None:
        ids = iter([f"evt_{n:06}" for n in range(self.events)])
        sending = [asyncio.create_task(self._send(ids)) for _ in range(self.senders)]
        share = -(-self.events // (self.kills + 1))
        for _ in range(self.kills):
            self._budget += share
            process = await asyncio.to_thread(self.place.start)
            if self.rand.random() > 0.15:  # the others are killed while they start
                await self._listening(process)
            await asyncio.sleep(self.rand.random() * self.life)
            await asyncio.to_thread(self.place.end, process, signal.SIGKILL)
        self._budget = self.events
        await asyncio.to_thread(self.place.serve)
        # Each sender pauses between two events: how many are left depends on the machine.
        async with asyncio.timeout(PATIENCE_S + self.events / self.senders * self.life):
            await asyncio.gather(*sending)

    async def _listening(self, process: "subprocess.Popen[bytes]") -> None:
        while not self.place.listens():
            assert process.poll() is None, self.place.log()
            await asyncio.sleep(0.02)

    async def _send(self, ids: Any) -> None:
        for id in ids:
            # Each life of the server has its share of new events, so that kills meet work.
            while self._budget <= 0:
                await asyncio.sleep(0.005)
            self._budget -= 1
            # And they come all the time, not all at its beginning.
            await asyncio.sleep(self.rand.random() * self.life / 2)
            await insist(self.place.port, make_event("order.paid", id=id))
            self.acked.append(id)

    def account(self) -> Account:
        """Wait until everything is handled, and compare."""
        place = self.place
        place.wait(lambda: place.to_run() == 0, "all jobs to end", seconds=2 * PATIENCE_S)
        for process in list(place.processes):
            place.end(process, signal.SIGTERM)
        return take_account(place, self.acked)


def take_account(place: Place, acked: list[str]) -> Account:
    stored = {id for (id,) in place.query("SELECT id FROM hooks_events")}
    done = {
        (id, handler)
        for handler in HANDLERS
        for id, state, *_ in place.jobs(handler)
        if state == "succeeded"
    }
    effects = Counter(place.query("SELECT event_id, handler FROM effects"))
    outside = Counter(line.split()[0] for line in place.noted("outside"))
    wanted = {(id, handler) for id in acked for handler in HANDLERS}
    transactional = {pair for pair in wanted if pair[1] in TRANSACTIONAL}
    integrity = "ok"
    if place.kind == "sqlite":
        [(integrity,), *_] = place.query("PRAGMA integrity_check")
    [(again,)] = place.query("SELECT coalesce(sum(count), 0) FROM hooks_redeliveries")
    return Account(
        acked=len(acked),
        kills=place.deaths.count(-signal.SIGKILL),
        lost=sorted(set(acked) - stored),
        unhandled=sorted((wanted - done) | {(id, "outside") for id in acked if id not in outside}),
        repeated=sorted(pair for pair, count in effects.items() if count > 1),
        missing=sorted(transactional - set(effects)),
        integrity=str(integrity),
        deliveries=len(stored) + int(again),
        again=sum(count > 1 for count in outside.values()),
    )


async def deliver_until_dead(
    port: int, process: "subprocess.Popen[bytes]", bodies: list[bytes]
) -> None:
    """Deliver bodies, one after another and each until it is acknowledged, to a mortal server."""

    async def all_of_them() -> None:
        for body in bodies:
            await insist(port, body)

    sending = asyncio.create_task(all_of_them())
    async with asyncio.timeout(PATIENCE_S):
        while process.poll() is None:
            await asyncio.sleep(0.005)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


MakePlace = Callable[..., Place]
