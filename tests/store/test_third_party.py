"""A store of somebody else's is found by its scheme, and held to the contract, from our wheel."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from storekit import FULL

from animica_hooks.errors import ConfigurationError
from animica_hooks.store.connect import make_store

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = Path(__file__).resolve().parent / "third_party"
# Without full size, a part: the same code is run as a whole on our own stores.
PART = () if FULL else ("-k", "session or handler_wrote or claim or stored or line")
UV = Path(sysconfig.get_path("scripts")) / "uv"


def run(*command: str | Path, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COV", "PYTEST", "PYTHON", "VIRTUAL_ENV", "ANIMICA_HOOKS"))
    }
    return subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def build(source: Path, target: Path) -> Path:
    """Build a project's wheel."""
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = target.iterdir()
    return wheel


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has our wheel and the other's, and not this checkout."""
    folder = tmp_path_factory.mktemp("third-party")
    wheels = [build(source, folder / source.name) for source in (ROOT, PROJECT)]
    venv = folder / "venv"
    made = run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    assert made.returncode == 0, made.stderr
    interpreter = venv / "bin" / "python"
    done = run(
        *(UV, "pip", "install", "--offline", "--no-deps", "--python", interpreter, *wheels),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    # What both depend on. Editable installs there, this checkout's too, do not count from here.
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return interpreter


def run_suite(python: Path, folder: Path, *options: str, **environment: str) -> str:
    """Run the tests of the other project, as its author would; return what pytest says."""
    done = run(
        *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}"),
        *(*options, PROJECT / "test_ledger.py", f"--rootdir={PROJECT}", "-c", os.devnull),
        cwd=PROJECT,
        PYTHONDONTWRITEBYTECODE="1",
        **environment,
    )
    return done.stdout + done.stderr


def test_the_published_suite_runs_against_a_store_of_somebody_else(
    python: Path, tmp_path: Path
) -> None:
    """Installed and named, the contract runs unchanged against that store, and passes."""
    where = run(python, "-c", "import animica_hooks as a; print(a.__file__)", cwd=tmp_path).stdout
    assert where.startswith(str(python.parent.parent))

    said = run_suite(python, tmp_path / "base", *PART)

    last = said.splitlines()[-1]
    assert " passed" in last, said
    assert "failed" not in last, said
    assert int(last.split()[0]) >= 20
    assert list((tmp_path / "base").glob("*/inbox.ledger")) != []


def test_a_store_that_breaks_a_promise_fails_the_suite(python: Path, tmp_path: Path) -> None:
    """A store that forgets how attempts ended is named by the test that it fails, with values."""
    said = run_suite(
        python, tmp_path / "base", "-k", "test_a_completed_job_is_done", LEDGER_FORGETS="1"
    )

    assert "1 failed" in said, said
    assert "'leased'" in said  # the assertion shows what there was


def test_the_command_line_takes_such_a_store(python: Path, tmp_path: Path) -> None:
    """Whatever opens a database by its URL opens that of a registered store."""
    url = f"ledger:///{tmp_path / 'inbox.db'}"

    for command in (["db", "upgrade"], ["db", "check"]):
        done = run(*(python, "-m", "animica_hooks", *command, "--database-url", url), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "inbox.db").exists()


def test_a_store_that_can_not_be_imported_is_a_configuration_error(
    python: Path, tmp_path: Path
) -> None:
    """The message names what was to be imported, without the URL and its password."""
    url = f"broken://me:hunter2@/{tmp_path / 'inbox.db'}"

    done = run(python, "-m", "animica_hooks", "db", "upgrade", "--database-url", url, cwd=tmp_path)

    assert done.returncode != 0
    assert "hooks_ledger:NoSuchStore" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_an_unknown_scheme_says_that_a_package_may_be_missing() -> None:
    """Where nothing is registered the error says what there is, and what could be installed."""
    with pytest.raises(ConfigurationError, match="install the package that has a store for it"):
        make_store("nowhere://host/database", owner="one", lease_s=30, handlers=1)


def test_neither_the_package_nor_its_testing_imports_pytest() -> None:
    """Only the contract's own modules need pytest."""
    source = (
        "import sys, animica_hooks.testing, animica_hooks.hooks; print('pytest' in sys.modules)"
    )
    done = run(sys.executable, "-c", source, cwd=ROOT)

    assert done.stdout == "False\n", done.stderr
