"""A PostgreSQL that can not keep the promises is refused at the start, with what to change."""

import asyncio
import logging
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from databases import POSTGRESQL, Postgres, admin, engine_of, new_database
from sqlalchemy import make_url, text

from animica_hooks.cli import cli
from animica_hooks.errors import ConfigurationError, StoreUnavailable
from animica_hooks.store import postgres
from animica_hooks.store.connect import make_store

PASSWORD = "hunter2-CANARY"


@pytest.fixture
def database() -> Iterator[str]:
    with new_database(POSTGRESQL) as url:
        yield url


@pytest.fixture(scope="module")
def careless() -> Iterator[Postgres]:
    """A server that forgets in a crash, and asks one of its users for a password."""
    server = Postgres(Path(tempfile.mkdtemp(prefix="hooks-postgresql-")), fsync="off")
    (server.folder / "data" / "pg_hba.conf").write_text(
        "host all postgres all trust\nhost all all all scram-sha-256\n"
    )
    server.start()
    yield server
    server.remove()


async def opened(url: str) -> None:
    store = make_store(url, owner="one", lease_s=30, handlers=1)
    try:
        await store.open(migrate=True)
    finally:
        await store.close()


async def refusal(url: str) -> str:
    """Return why a database is refused."""
    with pytest.raises(ConfigurationError) as refused:
        await opened(url)
    message = str(refused.value)
    assert PASSWORD not in message
    assert PASSWORD not in repr(refused.value.__cause__)
    return message


def alter(url: str, setting: str) -> None:
    with admin(POSTGRESQL).connect() as connection:
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} SET {setting}"))


def as_user(url: str, name: str, **changes: str) -> str:
    changed = make_url(url).set(username=name, password=PASSWORD, **changes)
    return changed.render_as_string(hide_password=False)


async def test_an_old_version(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed is named, and what is there."""
    monkeypatch.setattr(postgres, "MIN_VERSION", 99)

    assert "is too old: 99 or newer is needed" in await refusal(database)


async def test_an_encoding_that_has_not_every_character() -> None:
    """Events may hold any text."""
    latin = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    with new_database(POSTGRESQL, latin) as url:
        assert "create a database with ENCODING 'UTF8'" in await refusal(url)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_an_isolation_level_that_fails_where_others_write(database: str, level: str) -> None:
    """The statements are written for READ COMMITTED."""
    alter(database, f"default_transaction_isolation TO '{level}'")

    assert f"by '{level}', and 'read committed' is needed" in await refusal(database)


async def test_a_standby(tmp_path: Path) -> None:
    """A server that follows another can not be written."""
    folder = Path(tempfile.mkdtemp(prefix="hooks-postgresql-"))
    server = Postgres(folder, restore_command="false", hot_standby="on")
    (folder / "data" / "standby.signal").touch()
    try:
        server.start()
        assert "is a standby and can not be written: name the primary" in await refusal(server.url)
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_wrong_password(careless: Postgres) -> None:
    """It is not said which of them is wrong: the server does not tell either."""
    engine = engine_of(POSTGRESQL, careless.url)
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE alice LOGIN PASSWORD 'another'"))
    engine.dispose()

    for name in ("alice", "bob"):
        message = await refusal(as_user(careless.url, name))
        assert "refuses the user or the password of database_url: change them" in message


@pytest.mark.parametrize("name", ["current", "check", "upgrade"])
def test_commands_tell_a_wrong_password_from_an_outage(careless: Postgres, name: str) -> None:
    """It is wrong configuration, exit code 2, as it is for those that receive."""
    ended = CliRunner().invoke(cli, ["db", name, "--database-url", as_user(careless.url, "carol")])

    assert 2 == ended.exit_code
    assert "refuses the user or the password of database_url" in ended.stderr
    assert PASSWORD not in ended.stderr
    down = CliRunner().invoke(cli, ["db", name, "--database-url", "postgresql://u@127.0.0.1:1/x"])
    assert 1 == down.exit_code


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", r"is not PostgreSQL: something else listens at 127\.0\.0\.1:\d+\.$"),
        ("?sslmode=prefer", "is not PostgreSQL"),
        ("?sslmode=require", "has no TLS, .*Or it is not PostgreSQL that listens at 127"),
    ],
)
async def test_a_server_that_is_not_postgresql(options: str, says: str) -> None:
    """One that greets first, as MariaDB does: its port was mistaken for PostgreSQL's."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x5b\0\0\0\x0a5.5.5-10.11.6-MariaDB\0")
        await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as greeting:
        port = greeting.sockets[0].getsockname()[1]
        message = await refusal(f"postgresql://u@127.0.0.1:{port}/x{options}")

    assert re.search(says, message)


async def test_a_database_that_does_not_exist(database: str) -> None:
    """Making it is left to whoever runs the server."""
    message = await refusal(as_user(database, "postgres", database="hooks_test_nowhere"))

    assert "hooks_test_nowhere does not exist: create the database" in message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("connect_timeout=5", "one of its options is wrong"),
        ("sslmode=require", "has no TLS, which the sslmode of database_url asks for"),
    ],
)
async def test_options_that_do_not_fit_the_server(
    careless: Postgres, options: str, says: str
) -> None:
    """They are an error of configuration: nothing that passes."""
    assert says in await refusal(f"{careless.url}?{options}")


async def test_a_host_that_is_not_known(database: str) -> None:
    """Its name is told, and where it came from."""
    message = await refusal(as_user(database, "postgres", host="nowhere.invalid"))

    assert "nowhere.invalid" in message
    assert "change the host in database_url" in message


async def test_a_user_who_may_not_make_tables(database: str) -> None:
    """What to grant is named."""
    name = f"{make_url(database).database}_user"
    with admin(POSTGRESQL).connect() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"))
        connection.execute(
            text(f"REVOKE ALL ON DATABASE {make_url(database).database} FROM PUBLIC")
        )
        connection.execute(
            text(f"GRANT CONNECT ON DATABASE {make_url(database).database} TO {name}")
        )
    engine = engine_of(POSTGRESQL, database)
    with engine.begin() as connection:
        connection.execute(text("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {name}"))
    try:
        assert "GRANT it USAGE and CREATE on the schema" in await refusal(as_user(database, name))
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))
        engine.dispose()


async def test_nobody_listens(database: str) -> None:
    """A server that is down is no wrong set-up, and may be up again soon."""
    url = make_url(database).set(username=PASSWORD, password=PASSWORD, port=1)
    for host in ("127.0.0.1", "localhost"):
        there = url.set(host=host).render_as_string(hide_password=False)
        with pytest.raises(StoreUnavailable, match=f"nothing listens at {host}:1. Start") as raised:
            await opened(there)
        assert PASSWORD not in str(raised.value)
    with pytest.raises(StoreUnavailable, match=r"listens at /nowhere/\.s\.PGSQL\.5432"):
        await opened("postgresql://u@/x?host=/nowhere")


async def test_who_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where something listens that says nothing, as behind some firewalls."""
    monkeypatch.setattr(postgres, "CONNECT_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StoreUnavailable, match=f"does not answer in time: .*127.0.0.1:{port}"):
            await opened(f"postgresql://u@127.0.0.1:{port}/x")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql+asyncpg://u:{PASSWORD}@h/d", r"not supported: .*postgresql://.*driver"),
        (f"oracle://u:{PASSWORD}@h/d", "not supported"),
        (f"postgresql://u:{PASSWORD}@h", "names no database"),
        (f"postgresql//u:{PASSWORD}@h/d", "is not a URL"),
        (f"postgresql://u:{PASSWORD}@h1,h2/d", "names several hosts, and one is supported"),
        (f"postgresql://u:{PASSWORD}@h1,h2:5433/d", "names several hosts"),
        (f"postgresql://u:{PASSWORD}@h1:5432,h2:5432/d", "one host only"),
        (f"postgresql://u:{PASSWORD}@/d?host=h1:1&host=h2:2", "names several hosts"),
        (f"postgresql://u:{PASSWORD}@/d?host=h1,h2", "names several hosts"),
        (f"postgresql://u:{PASSWORD}@h1/d?host=h2", "names several hosts"),
        (f"mariadb://u:{PASSWORD}@h1,h2/d", "names several hosts"),
    ],
)
async def test_urls_that_are_not_supported(url: str, says: str) -> None:
    """The URL itself, which has a password in it, is never quoted."""
    with pytest.raises(ConfigurationError, match=says) as refused:
        await opened(url)
    assert PASSWORD not in str(refused.value)


async def test_a_server_that_forgets_is_warned_of(
    careless: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """With fsync off a crash of the machine loses acknowledged events: whoever runs it is told."""
    with caplog.at_level(logging.WARNING, "animica_hooks"):
        await opened(careless.url)

    assert "PostgreSQL has fsync = off: a crash" in caplog.text


async def test_a_commit_that_is_not_waited_for_is_warned_of(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """So is whoever has switched off synchronous_commit; and nobody else."""
    with caplog.at_level(logging.WARNING, "animica_hooks"):
        await opened(database)
        assert "" == caplog.text
        alter(database, "synchronous_commit TO off")
        await opened(database)

    assert "PostgreSQL has synchronous_commit = off: a crash" in caplog.text
