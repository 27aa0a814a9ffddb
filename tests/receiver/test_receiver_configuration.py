"""A wrong set-up is a ``ConfigurationError`` that says what to do, before anything is received."""

import asyncio
import errno
import os
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from receiving import SECRET, deliver, set_schema, spoil, stored_ids, url

from animica_hooks import ConfigurationError, Event, Hooks, RetryPolicy, Router, on
from animica_hooks.core.routing import default_router
from animica_hooks.testing import make_event


async def _start(hooks: Hooks) -> None:
    async with hooks.lifespan():
        pass


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("oracle://user:hunter2@localhost/hooks", "begins with oracle://, which is not"),
        ("postgresql+psycopg://user:hunter2@localhost/hooks", "without a driver"),
        ("sqlite+aiosqlite:///hooks.db", "without a driver"),
        ("hooks.db", "not a URL"),
        ("sqlite//hooks.db?hunter2", "not a URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///file:hooks.db", "names no file"),
        ("sqlite://localhost/hooks.db", "a host or options"),
        ("sqlite:///hooks.db?mode=hunter2", "a host or options"),
    ],
)
async def test_wrong_url(make_hooks: Callable[..., Hooks], wrong: str, advice: str) -> None:
    """A URL of no database that is supported says which are; what it holds is not quoted."""
    with pytest.raises(ConfigurationError, match=advice) as caught:
        await _start(make_hooks(database_url=wrong))
    assert "sqlite:///animica-hooks.db" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql://user:hunter2@localhost:many/hooks",
        "postgresql://user:hunter2@one:5432,two:5432/hooks",
        "mariadb://user:pass@word:hunter2/@localhost/hooks",  # the password ends at the first '@'
    ],
)
async def test_port_that_is_no_number(make_hooks: Callable[..., Hooks], wrong: str) -> None:
    """It may be a part of a password, or of a second host: both are named, and nothing quoted."""
    with pytest.raises(ConfigurationError, match="a port that is not a number") as caught:
        await _start(make_hooks(database_url=wrong))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("wrong", ["", " ", 1])
def test_blank_url(wrong: Any) -> None:
    """A blank URL, as of a variable that is set to nothing, is refused at once."""
    with pytest.raises(ConfigurationError, match="blank"):
        Hooks(signing_secret=SECRET, database_url=wrong)


async def test_directory(make_hooks: Callable[..., Hooks], tmp_path: Path) -> None:
    """A directory is no file."""
    with pytest.raises(ConfigurationError, match="is a directory: name a file in it"):
        await _start(make_hooks(database_url=url(tmp_path)))


def test_missing_directory(make_hooks: Callable[..., Hooks], tmp_path: Path) -> None:
    """A directory that does not exist is not made, for it may be a misspelt one."""
    with pytest.raises(ConfigurationError, match="does not exist: create it"):
        asyncio.run(_start(make_hooks(database_url=url(tmp_path / "missing" / "hooks.db"))))
    assert [] == list(tmp_path.iterdir())


def test_directory_that_takes_no_files(
    make_hooks: Callable[..., Hooks], database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files beside the database, which it needs, are named where they can not be made."""
    really_open = os.open

    def refuse(path: Any, *rest: Any) -> int:
        if str(path).endswith("-turns"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        ConfigurationError, match=r"hooks\.db-turns can not be made .* let this user"
    ):
        asyncio.run(_start(make_hooks()))


@pytest.mark.parametrize("content", [b"It was a dark and stormy night. " * 100, b"\0" * 8192])
def test_not_a_database(make_hooks: Callable[..., Hooks], database: Path, content: bytes) -> None:
    """A file of another kind is refused, and left as it is."""
    spoil(database, content)
    with pytest.raises(ConfigurationError, match="can not be used as an SQLite database"):
        asyncio.run(_start(make_hooks()))
    assert content == database.read_bytes()


async def test_database_of_somebody_else(make_hooks: Callable[..., Hooks], database: Path) -> None:
    """A database that has other tables gets ours beside them."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE events (id TEXT)")
    hooks = make_hooks()
    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, make_event("a.b", id="evt_1"))).status
    assert ["evt_1"] == stored_ids(database)


async def test_newer_schema(make_hooks: Callable[..., Hooks], database: Path) -> None:
    """A database that a newer version has upgraded is not touched by an older one."""
    await _start(make_hooks())
    set_schema(database, "9999")
    with pytest.raises(ConfigurationError, match=r"at schema 9999, .*: install the newer"):
        await _start(make_hooks())


async def test_no_schema(make_hooks: Callable[..., Hooks], database: Path) -> None:
    """Where it must not migrate by itself, it says who does."""
    with pytest.raises(ConfigurationError, match="run 'animica-hooks db upgrade'"):
        await _start(make_hooks(auto_migrate=False))
    await _start(make_hooks())
    await _start(make_hooks(auto_migrate=False))


async def test_missing_secret(
    make_hooks: Callable[..., Hooks], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a secret it does not receive, and says where one goes."""
    monkeypatch.delenv("ANIMICA_HOOKS_SIGNING_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match="set ANIMICA_HOOKS_SIGNING_SECRET, or pass"):
        await _start(make_hooks(signing_secret=None))


async def test_from_the_environment(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets and the database come from the environment; the file is in the directory else."""
    monkeypatch.setenv(
        "ANIMICA_HOOKS_SIGNING_SECRET", f"whsec_CANARY-the-newer-of-the-two, {SECRET}"
    )
    monkeypatch.setenv("ANIMICA_HOOKS_DATABASE_URL", url(database))
    hooks = Hooks(routers=[])
    async with hooks.lifespan():
        assert 204 == (await deliver(hooks, make_event("a.b", id="evt_1"))).status
    assert ["evt_1"] == stored_ids(database)
    monkeypatch.delenv("ANIMICA_HOOKS_DATABASE_URL")
    monkeypatch.chdir(tmp_path)
    await _start(Hooks(routers=[]))
    assert (tmp_path / "animica-hooks.db").exists()


async def test_two_handlers_of_one_name(make_hooks: Callable[..., Hooks]) -> None:
    """Two handlers of one name would share their jobs: refused, within a router and across."""
    hooks, router = make_hooks(), Router()

    @hooks.on("a.b", name="twin")
    async def one(event: Event) -> None: ...

    with pytest.raises(ConfigurationError, match="two handlers are named twin: pass name="):

        @hooks.on("c.d", name="twin")
        async def two(event: Event) -> None: ...

    @router.on("c.d", name="twin")
    async def three(event: Event) -> None: ...

    hooks.include(router)
    with pytest.raises(ConfigurationError, match="two handlers are named twin"):
        await _start(hooks)


async def test_type_that_can_not_be_found(make_hooks: Callable[..., Hooks]) -> None:
    """A handler whose ``Event[T]`` names no type is found at the start, not by an event."""
    hooks = make_hooks()

    @hooks.on("a.b", name="typed")
    async def typed(event: "Event[Missing]") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="Import its names at run time"):
        await _start(hooks)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tolerance", 0),
        ("max_body", 0),
        ("max_body", 1.5),
        ("body_deadline", -1),
        ("ack_deadline", float("nan")),
        ("ack_deadline", float("inf")),
        ("timeout", "1"),
        ("lease", True),
        ("shutdown", 0),
        ("concurrency", 0),
        ("threads", True),
        ("retry", 3),
        ("routers", 5),
        ("routers", Router()),
        ("routers", ["shop"]),
        ("observers", [5]),
        ("signing_secret", "short"),
        ("signing_secret", ""),
        ("signing_secret", []),
        ("signing_secret", [SECRET, " "]),
        ("signing_secret", "whsec_" + "*" * 30),
        ("signing_secret", SECRET + "\n"),
    ],
)
def test_wrong_option(make_hooks: Callable[..., Hooks], option: str, value: object) -> None:
    """A wrong option is refused where it is given, by its name."""
    with pytest.raises(ConfigurationError, match=option):
        make_hooks(**{option: value})


def test_default_router(make_hooks: Callable[..., Hooks], monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers of ``from animica_hooks import on`` are every app's, unless it names its routers."""
    monkeypatch.setattr(default_router, "handlers", [])

    @on("a.b", name="shared", retry=RetryPolicy(max_attempts=1))
    async def shared(event: Event) -> None: ...

    assert ["shared"] == [handler.name for handler in Hooks().handlers()]
    assert () == make_hooks().handlers()
