import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from clikit import SECRET, SHOP, body_of, stock

from animica_hooks.cli import cli
from animica_hooks.cli.apps import load_hooks

Command = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the shop's app, and an environment that names its database."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANIMICA_HOOKS_SIGNING_SECRET", SECRET)
    monkeypatch.setenv("ANIMICA_HOOKS_DATABASE_URL", f"sqlite:///{tmp_path / 'shop.db'}")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("shop", None)


@pytest.fixture
def command(here: Path) -> Command:
    """Run a command in this process, with nobody at its input."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin)

    return run


@pytest.fixture(scope="session")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a day: two orders booked, one dead letter, one unhandled, two quarantined."""
    folder = tmp_path_factory.mktemp("day")
    (folder / "shop.py").write_text(SHOP)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("ANIMICA_HOOKS_SIGNING_SECRET", SECRET)
        patched.syspath_prepend(folder)
        stock(
            load_hooks("shop:hooks", f"sqlite:///{folder / 'shop.db'}"),
            [
                body_of("evt_1", "order.paid", amount=1),
                body_of("evt_2", "order.paid", amount=2),
                body_of("evt_2", "order.paid", amount=2),
                body_of("evt_3", "order.lost"),
                body_of("evt_4", "order.\x1b[31m[red]seen", note="\x9b1m\u202e"),
                b'{"type": "order.paid", "data": {}}',
                b"no JSON\x1b[31m",
            ],
        )
    sys.modules.pop("shop")
    return folder / "shop.db"


@pytest.fixture
def stocked(here: Path, day: Path) -> Path:
    """The shop's database, after that day."""
    return Path(shutil.copy(day, here))
