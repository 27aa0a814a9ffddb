"""What all tests share: the event loop, how hard Hypothesis tries, and databases to test on."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from databases import SERVERS, empty, engine_of, new_database
from hypothesis import settings
from sqlalchemy import Engine, create_engine

from animica_hooks.store import schema

# By default the same examples every time, so that a failure is the change's; in full, others.
settings.register_profile("small", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("full", deadline=None, max_examples=3000)
settings.load_profile("full" if os.environ.get("ANIMICA_HOOKS_TEST_SIZE") == "full" else "small")


# The tests' secrets are marked, so that any of them that is said aloud is known for one.
_CANARY = re.compile(r"(?:whsec|anm_live|anm_test)_CANARY[\w-]*")


def canaries(said: str) -> list[str]:
    """Return the secrets in what has been said."""
    return sorted({*_CANARY.findall(said)})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport]:
    """Fail each test in whose output or log, or that of whose processes, there is a secret."""
    report = yield
    if report.when == "teardown" and report.outcome != "failed":
        logs = [path for path in _folder_of(item).rglob("*log") if path.is_file()]
        said = [content for _, content in report.sections]
        said += [path.read_text(encoding="utf-8", errors="replace") for path in logs]
        if found := canaries("".join(said)):
            report.outcome = "failed"
            report.longrepr = f"secrets were said aloud: {', '.join(found)}"
    return report


def _folder_of(item: pytest.Item) -> Path:
    """Return a test's own folder, where its processes log."""
    folder: Path = getattr(item, "funcargs", {}).get("tmp_path", Path("no folder"))
    return folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly what was left out, and why."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(
        report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)
    )
    for reason, count in reasons.items():
        if "LEFT OUT" in reason:
            terminalreporter.write_line(f"{count} tests: {reason}", red=True, bold=True)


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the package does."""
    return "asyncio"


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """The kind of database: SQLite, unless the test is marked ``on_every_database``."""
    kind: str = getattr(request, "param", "sqlite")
    return kind


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, database_kind: str, tmp_path: Path
) -> Iterator[str]:
    """A database that no other test uses; without tables, unless ``inbox_url`` makes them."""
    if database_kind in SERVERS and "inbox_url" in request.fixturenames:
        yield request.getfixturevalue("empty_database")(database_kind)
    elif database_kind in SERVERS:
        with new_database(database_kind) as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path / 'inbox.db'}"


@pytest.fixture
def inbox_url(database_url: str, database_kind: str, migrated: Path, tmp_path: Path) -> str:
    """A database that no other test uses just now, with tables and nothing in them."""
    if database_kind == "sqlite":
        shutil.copyfile(migrated, tmp_path / "inbox.db")
    return database_url


def _migrate(engine: Engine) -> None:
    with engine.begin() as connection:
        schema.upgrade(connection)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, to be copied: making them takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "inbox.db"
    engine = create_engine(f"sqlite:///{path}")
    _migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def empty_database() -> Iterator[Callable[[str], str]]:
    """Returns the URL of a database on a server, with empty tables; one for all tests."""
    with ExitStack() as at_end:
        made: dict[str, tuple[str, Engine]] = {}

        def empty_database(kind: str) -> str:
            if kind not in made:
                url = at_end.enter_context(new_database(kind))
                engine = engine_of(kind, url)
                at_end.callback(engine.dispose)
                _migrate(engine)
                made[kind] = url, engine
            url, engine = made[kind]
            empty(kind, engine)
            return url

        yield empty_database
