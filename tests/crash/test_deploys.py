"""Two releases at one database: deployed one after the other, and taken back."""

import asyncio
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from appkit import done
from crashkit import HERE, PATIENCE_S, MakePlace, Place, free_port, request
from databases import engine_of, listens, on_every_database
from sqlalchemy import select, text

import animica_hooks
from animica_hooks.store.schema import HEAD
from animica_hooks.testing import make_event

NEXT = f"{int(HEAD) + 1:04}"
SENDERS = 4
FROM_THE_FIRST = ("stays", "stays in line", "leaves", "is renamed")

# What a migration of the next release may do, and what its code then knows.
MIGRATION = f'''
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{NEXT}", "{HEAD}", None, None


def upgrade():
    op.add_column("hooks_handlers", sa.Column("owned_by", sa.String(50)))
    op.add_column("hooks_events", sa.Column("tenant", sa.String(50)))
    op.add_column("hooks_jobs", sa.Column("weight", sa.Integer, nullable=False, server_default="1"))
    op.create_index("ix_hooks_jobs_weight", "hooks_jobs", ["weight"])
    op.create_table(
        "hooks_tenants",
        sa.Column("name", sa.String(50), primary_key=True),
        mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_nopad_bin",
    )
'''
WHAT_ITS_CODE_KNOWS = {  # each after a line of the tables
    'Column("tokens_at", _Micros),': 'Column("owned_by", String(50)),',
    'Column("received_at", _Micros, nullable=False),': 'Column("tenant", String(50)),',
    'Column("keyed_by", BigInteger),':
        'Column("weight", Integer, nullable=False, server_default="1"),',
    'Index("ix_hooks_jobs_event", "event_seq"),': 'Index("ix_hooks_jobs_weight", "weight"),',
    "UNSORTED = 2": """
tenants = _table("hooks_tenants", Column("name", String(50), primary_key=True))
""",
}  # fmt: skip


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it may be one release on."""
    package = Path(animica_hooks.__file__).parent
    folder = tmp_path_factory.mktemp("next")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folder / package.name, ignore=ignored)
    shutil.copytree(package.parent / "migrations", folder / "migrations", ignore=ignored)
    (folder / "migrations" / "versions" / f"{NEXT}_next.py").write_text(MIGRATION)
    change(folder / package.name / "store" / "schema.py", f'HEAD = "{HEAD}"', f'HEAD = "{NEXT}"')
    for line, more in WHAT_ITS_CODE_KNOWS.items():
        change(folder / package.name / "store" / "tables.py", line, f"{line} {more}")
    return folder


def change(path: Path, was: str, becomes: str) -> None:
    """Change the first of what a file says."""
    code = path.read_text()
    assert was in code, was
    path.write_text(code.replace(was, becomes, 1))


class Deployment:
    """Processes of both releases at one place; each that receives has a port of its own."""

    def __init__(self, place: Place, next_release: Path) -> None:
        self.place = place
        self._next = {
            "PYTHONPATH": os.pathsep.join([str(next_release), str(HERE), *sys.path]),
            "DEPLOY_NEXT": "1",
        }

    def start(self, *, is_next: bool) -> tuple["subprocess.Popen[bytes]", int]:
        """Start a process that receives and handles; return it and its port once it listens."""
        port = free_port()
        process = self.place.start(
            app="deploy_app:hooks", port=port, **(self._next if is_next else {})
        )
        self.place.wait(lambda: listens(port) or process.poll() is not None, "it to listen")
        assert process.poll() is None, self.place.log()
        return process, port

    def worker(self) -> None:
        """Start a process of the next release that only handles."""
        self.place.start("worker", app="deploy_app:hooks", **self._next)

    def command(self, *arguments: str, is_next: bool = False) -> tuple[int, str]:
        """Run a command of a release; return its code and what it said."""
        ended = subprocess.run(
            [sys.executable, "-m", "animica_hooks", *arguments],
            cwd=self.place.folder,
            env={
                **os.environ,
                "ANIMICA_HOOKS_DATABASE_URL": self.place.url,
                **(self._next if is_next else {}),
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr


class Traffic:
    """Senders that deliver, each one event after the other until it is acknowledged.

    Attributes:
        ports: of processes that receive, of which any may be asked.
        acked: the events that were acknowledged.
        begun: how many were sent.
        by_sender: the events of each, in order.
    """

    def __init__(self, *ports: int) -> None:
        self.ports: list[int] = list(ports)
        self.acked: list[str] = []
        self.begun = 0
        self.by_sender: list[list[str]] = []
        self._numbers = itertools.count()
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*[self._send(f"sender-{n}") for n in range(SENDERS)])

    async def _send(self, sender: str) -> None:
        own: list[str] = []
        self.by_sender.append(own)
        while not self._over:
            id = f"evt_{next(self._numbers):06}"
            self.begun += 1
            own.append(id)
            body = make_event("order.paid", {"sender": sender}, id=id)
            while await request(random.choice(self.ports), body) != 204:
                if self._over:
                    return
                await asyncio.sleep(0.02)
            self.acked.append(id)
            await asyncio.sleep(0.02)

    def goes_on(self, place: Place, events: int = 30) -> None:
        """Wait until so many more events were acknowledged."""
        until = len(self.acked) + events
        place.wait(lambda: len(self.acked) >= until, "events to be acknowledged")


class Account:
    """What is done, at the end of it all."""

    def __init__(self, place: Place) -> None:
        engine = engine_of(place.kind, place.url)
        with engine.connect() as connection:
            rows = connection.execute(select(done).order_by(done.c.n)).all()
        engine.dispose()
        self.times = Counter((row.handler, row.event_id) for row in rows)
        self.by = {(row.handler, row.schema_known) for row in rows}
        self._order = [(row.handler, row.event_id) for row in rows]

    def order(self, handler: str, events: list[str]) -> list[str]:
        """Return some events in the order in which a handler has handled them."""
        return [id for name, id in self._order if name == handler and id in events]


@on_every_database
def test_a_release_is_deployed_beside_the_last_and_taken_back(
    make_place: MakePlace, next_release: Path
) -> None:
    """Under load, with kills, two releases share the work on one database; nothing is lost.

    What only one of them has a handler for waits for it. The last release goes on through the
    upgrade, starts on the schema of the next, and leaves it as it is.
    """
    place = make_place()
    engine = engine_of(place.kind, place.url)
    done.create(engine)
    deployment = Deployment(place, next_release)
    old, old_port = deployment.start(is_next=False)
    with Traffic(old_port) as traffic:
        traffic.goes_on(place)
        upgraded = deployment.command("db", "upgrade", is_next=True)
        assert (0, f"the database went from schema {HEAD} to {NEXT}\n") == upgraded
        traffic.goes_on(place)

        new, new_port = deployment.start(is_next=True)
        place.wait(lambda: place.jobs("comes"), "the old one to make jobs of the new handler")
        known_from = traffic.begun
        traffic.ports = [old_port, new_port]
        traffic.goes_on(place)
        place.end(old, signal.SIGKILL)
        traffic.ports = [new_port]
        old, old_port = deployment.start(is_next=False)
        traffic.ports = [old_port, new_port]
        traffic.goes_on(place)

        # The new release is taken back.
        place.end(new, signal.SIGKILL)
        traffic.ports = [old_port]
        behind = len(place.jobs("comes"))
        place.wait(lambda: len(place.jobs("comes")) > behind + 30, "jobs to wait for their handler")
        restarted, new_port = deployment.start(is_next=False)
        assert 0 == place.end(old, signal.SIGTERM)
        traffic.ports = [new_port]
        traffic.goes_on(place)
        waiting = {(state, attempts) for _, state, attempts, *_ in place.jobs("comes")}
        # Those that were leased are nobody's to give back who does not know how to run them.
        assert {("available", 0)} <= waiting
        assert waiting <= {("available", 0), ("leased", 0), ("succeeded", 1)}
        for name, said in {
            "current": f"{NEXT}: newer than {HEAD}",
            "upgrade": f"at schema {NEXT} already: newer than {HEAD}",
            "check": f"those of schema {NEXT}: newer than {HEAD}",
        }.items():
            code, answer = deployment.command("db", name)
            assert (0, True) == (code, said in answer), answer
        assert [(NEXT,)] == place.query("SELECT version_num FROM hooks_version")

        # And deployed again.
        new, new_port = deployment.start(is_next=True)
        traffic.ports = [new_port]
        assert 0 == place.end(restarted, signal.SIGTERM)
        traffic.goes_on(place)
        with engine.begin() as connection:  # two minutes go by
            minutes = {"at": 120 * 10**6}
            connection.execute(
                text("UPDATE hooks_handlers SET seen_at = seen_at - :at WHERE name = 'leaves'"),
                minutes,
            )
        deployment.worker()
        place.wait(
            lambda: "no process that runs has the handler leaves" in place.log(),
            "the handler that is gone to be told of",
        )
    assert {"available", "succeeded"} == {state for _, state, *_ in place.jobs("leaves")}
    assert 0 == deployment.command("db", "check", is_next=True)[0]

    deployment.start(is_next=False)
    place.wait(lambda: place.to_run() == 0, "all jobs to end")

    account = Account(place)
    engine.dispose()
    wanted = {(name, id) for name in FROM_THE_FIRST for id in traffic.acked}
    wanted |= {("comes", id) for id in traffic.acked if id >= f"evt_{known_from:06}"}
    assert set() == wanted - account.times.keys()
    assert {1} == {*account.times.values()}
    assert {
        ("stays", HEAD), ("stays", NEXT), ("stays in line", HEAD), ("stays in line", NEXT),
        ("leaves", HEAD), ("comes", NEXT), ("is renamed", HEAD), ("is renamed", NEXT),
    } == account.by  # fmt: skip
    for sender in traffic.by_sender:
        for handler in ("stays in line", "comes"):
            order = account.order(handler, sender)
            assert sorted(order) == order
