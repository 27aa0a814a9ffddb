"""The architecture and the conventions are held by checks, and the checks are shown to bite."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "animica_hooks"

# Impure names in modules that the core may import for their pure parts.
IMPURE_NAMES = {
    "datetime": {"now", "today", "utcnow"},
    "date": {"today"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
    "hashlib": {"file_digest"},
}
IMPURE_BUILTINS = {"__import__", "eval", "exec", "input", "open", "print"}


def impurity(node: ast.AST) -> str | None:
    """Name the clock, file or dynamic import that a node reaches for."""
    match node:
        case ast.Attribute(value=owner, attr=name):
            last = ast.unparse(owner).rpartition(".")[2]
            return f"{last}.{name}" if name in IMPURE_NAMES.get(last, ()) else None
        case ast.ImportFrom(module=str(module), names=names):
            bad = {alias.name for alias in names} & IMPURE_NAMES.get(module, set())
            return f"{module}.{min(bad)}" if bad else dynamic_import(module)
        case ast.Import(names=names):
            return next(filter(None, (dynamic_import(alias.name) for alias in names)), None)
        case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
            return f"{name}()"
        case _:
            return None


def dynamic_import(module: str) -> str | None:
    """Name importlib: what it imports escapes every contract."""
    return module if module.partition(".")[0] == "importlib" else None


def impurities(source: str) -> list[str]:
    """Return the clocks, files and dynamic imports that an import contract cannot see."""
    return [found for node in ast.walk(ast.parse(source)) if (found := impurity(node))]


def lint_imports(folder: Path, *contracts: str) -> "subprocess.CompletedProcess[str]":
    """Check the package in a folder against this repository's contracts."""
    start = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    options = [f"--config={ROOT / 'pyproject.toml'}", "--no-cache", "--no-logo"]
    options += [f"--contract={contract}" for contract in contracts]
    return subprocess.run(
        [sys.executable, "-c", start, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package's source, to plant faults in."""
    shutil.copytree(
        PACKAGE, tmp_path / "animica_hooks", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def test_imports_point_down_and_the_core_is_pure() -> None:
    """Every module keeps to its layer, and the core imports no clock, randomness, loop or I/O."""
    done = lint_imports(ROOT)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract", "complaint"),
    [
        ("core/planted.py", "import time", "pure-core", "not allowed to import time"),
        ("core/planted.py", "from os import path", "pure-core", "not allowed to import os"),
        (
            "core/planted.py",
            "import sqlalchemy.sql",
            "pure-core",
            "not allowed to import sqlalchemy",
        ),
        ("errors.py", "import asyncio", "pure-core", "not allowed to import asyncio"),
        ("core/planted.py", "import animica_hooks.store", "layers", "animica_hooks.store"),
        ("store/planted.py", "import animica_hooks.receiver", "layers", "animica_hooks.receiver"),
        (
            "receiver/planted.py",
            "import animica_hooks.dispatch",
            "layers",
            "animica_hooks.dispatch",
        ),
        ("planted.py", "", "layers", "animica_hooks.planted"),
    ],
)
def test_a_planted_import_breaks_its_contract(
    copied: Path, file: str, line: str, contract: str, complaint: str
) -> None:
    """An import that points up or sideways, is impure, or a module without a layer is named."""
    with (copied / "animica_hooks" / file).open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")

    done = lint_imports(copied, contract)

    assert done.returncode == 1, done.stdout + done.stderr
    assert complaint in done.stdout


def test_the_core_reads_no_clock_and_no_file_by_other_names() -> None:
    """The core gets the time as an argument: no datetime.now, no open, no import by name."""
    found = {
        str(path.relative_to(ROOT)): problems
        for path in sorted((PACKAGE / "core").rglob("*.py"))
        if (problems := impurities(path.read_text(encoding="utf-8")))
    }

    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\nnow = datetime.now()",
        "import datetime as d\nimport datetime\nnow = datetime.datetime.utcnow()",
        "import datetime\nday = datetime.date.today()",
        "from pathlib import Path",
        "import pathlib\nx = pathlib.Path('x')",
        "open('x')",
        "print('x')",
        "import importlib",
        "from importlib import import_module",
        "from importlib.resources import files",
        "__import__('time')",
    ],
)
def test_a_planted_impurity_is_seen(source: str) -> None:
    """The search for hidden clocks and I/O sees each kind of them."""
    assert impurities(source) != []


def silent_tests(source: str) -> list[str]:
    """Return the names of the test functions that do not say what they promise."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]


def test_every_test_says_what_is_promised() -> None:
    """Each test function has a docstring."""
    found = {
        str(path.relative_to(ROOT)): names
        for path in sorted(
            [*(ROOT / "tests").rglob("test_*.py"), *(PACKAGE / "testing").rglob("*.py")]
        )
        if (names := silent_tests(path.read_text(encoding="utf-8")))
    }

    assert found == {}


def test_a_planted_silent_test_is_seen() -> None:
    """A test without a docstring is named, be it plain, async or a method; others are not."""
    source = (
        "def test_a(): pass\n"
        "async def test_b(): pass\n"
        "class TestC:\n    def test_d(self): pass\n"
        "def test_e():\n    'It holds.'\n"
        "def helper(): pass\n"
    )

    assert set(silent_tests(source)) == {"test_a", "test_b", "test_d"}
