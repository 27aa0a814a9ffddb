"""Upgrades of a database in use: what older processes left in it, and go on doing to it."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from databases import DATABASES, SERVERS, engine_of, new_database
from dispatchkit import make_hooks, settled
from sqlalchemy import Connection, Engine, MetaData, Table, insert, inspect, select, update

from animica_hooks import Event
from animica_hooks.store import schema

NOW = 1_700_000_000_000_000
VERSIONS = sorted(
    path.name.split("_")[0] for path in (schema._folder() / "versions").glob("[0-9]*.py")
)


@pytest.fixture(params=DATABASES)
def old(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[tuple[str, Engine]]:
    """A database of each kind without tables, for each its URL and a look into it."""
    if request.param in SERVERS:
        with new_database(request.param) as url:
            engine = engine_of(request.param, url)
            yield url, engine
            engine.dispose()
    else:
        url = f"sqlite:///{tmp_path / 'inbox.db'}"
        engine = engine_of("sqlite", url)
        yield url, engine
        engine.dispose()


def upgrade(engine: Engine, version: str) -> MetaData:
    """Bring a database to a version; return its tables as the code of that version knows them."""
    from alembic import command

    found = MetaData()
    with engine.begin() as connection:
        command.upgrade(schema._config(connection), version)
    with engine.connect() as connection:
        found.reflect(connection)
    return found


class OlderProcess:
    """Does what a process does, with the tables and columns of its version only."""

    def __init__(self, engine: Engine, metadata: MetaData) -> None:
        self._engine = engine
        self._tables = metadata.tables

    def _insert(self, connection: Connection, table: Table, **row: Any) -> int:
        key = connection.execute(insert(table).values(**row)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def register(self, name: str) -> int:
        with self._engine.begin() as connection:
            return self._insert(
                connection, self._tables["hooks_handlers"],
                name=name, endpoint="animica", patterns=json.dumps(["*"]), seen_at=NOW,
            )  # fmt: skip

    def receive(self, id: str, handler_id: int, **job: Any) -> int:
        """Store an event with a job; return the job."""
        body = json.dumps({"id": id, "type": "order.paid"}).encode()
        with self._engine.begin() as connection:
            seq = self._insert(
                connection, self._tables["hooks_events"],
                endpoint="animica", id=id, type="order.paid", received_at=NOW, headers=b"",
                body=body,
            )  # fmt: skip
            values = {
                "state": "available", "due_at": NOW, "attempts": 0, "failed": 0, "fence": 0,
                "orphaned": 0, "created_at": NOW, **job,
            }  # fmt: skip
            return self._insert(
                connection, self._tables["hooks_jobs"],
                event_seq=seq, handler_id=handler_id, **values,
            )  # fmt: skip

    def claim_and_complete(self, job_id: int) -> None:
        jobs = self._tables["hooks_jobs"]
        with self._engine.begin() as connection:
            for values in (
                {"state": "leased", "fence": jobs.c.fence + 1, "leased_by": "older"},
                {"state": "succeeded", "due_at": None, "attempts": 1, "finished_at": NOW},
            ):
                ended = connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))
                assert 1 == ended.rowcount

    def everything(self) -> dict[str, list[Any]]:
        with self._engine.connect() as connection:
            return {
                name: [tuple(row) for row in connection.execute(select(table))]
                for name, table in self._tables.items()
                if name != schema.VERSION_TABLE
            }


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_an_upgrade_keeps_what_is_there_and_older_processes_go_on(
    old: tuple[str, Engine], version: str
) -> None:
    """Nothing that was stored changes, and the newest code handles what the older goes on to store.

    An older process that runs on through the upgrade receives and works as before.
    """
    url, engine = old
    older = OlderProcess(engine, upgrade(engine, version))
    handler = older.register("one")
    older.receive("evt_waits", handler)
    older.receive("evt_dead", handler, state="dead", due_at=None, attempts=1, failed=1)
    older.receive("evt_orphan", handler, state="leased", fence=1, leased_by="dead process")
    before = older.everything()

    upgrade(engine, schema.HEAD)

    assert before == older.everything()
    with engine.connect() as connection:
        assert [] == schema.differences(connection)
    older.receive("evt_after", handler)
    older.claim_and_complete(older.receive("evt_its_own", handler))
    assert handler != older.register("two")

    assert ["evt_after", "evt_orphan", "evt_waits"] == sorted(asyncio.run(handled(url)))
    states = {row[3] for row in older.everything()["hooks_jobs"]}
    assert {"succeeded", "dead"} == states


async def handled(url: str) -> list[str]:
    """Run the newest code until nothing is to be done; return the events that it has handled."""
    hooks = make_hooks(url, auto_migrate=False)
    ran: list[str] = []

    @hooks.on("*", name="one")
    async def one(event: Event) -> None:
        ran.append(event.id)

    async with hooks.lifespan():
        await settled(hooks)
    return ran


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_an_upgrade_only_adds(old: tuple[str, Engine], version: str) -> None:
    """Columns stay as they are, new ones may be left out, and no index refuses what was allowed."""
    _, engine = old
    before = upgrade(engine, version)
    after = upgrade(engine, schema.HEAD)

    assert before.tables.keys() <= after.tables.keys()
    with engine.connect() as connection:
        look = inspect(connection)
        for name, table in before.tables.items():
            newer = after.tables[name]
            for column in table.columns:
                assert repr(column.type) == repr(newer.c[column.name].type)
                assert column.nullable == newer.c[column.name].nullable
            added = [column for column in newer.columns if column.name not in table.c]
            assert all(column.nullable or column.server_default for column in added)
            unique = [i["name"] for i in look.get_indexes(name) if i["unique"]]
            assert {*unique} <= {i.name for i in table.indexes} | {
                constraint.name for constraint in table.constraints
            }
