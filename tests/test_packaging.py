"""What an import costs and touches, what the package declares, and what its wheel may hold."""

import ast
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType

import pytest

import animica_hooks

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "animica_hooks"
# CPU seconds of a whole `python -c "from animica_hooks import *"`, interpreter start included.
IMPORT_CPU_S = 0.150
TRIES = 7

# Reports on its standard output what importing a module did besides reading files.
WATCH = """
import json, os, sys, threading
seen = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGING = (
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.putenv", "os.unsetenv",
    "os.fork", "os.posix_spawn", "os.system", "subprocess.Popen", "_thread.start_new_thread",
    "signal.pthread_kill", "sqlite3.connect", "tempfile.mkstemp", "tempfile.mkdtemp",
)
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if flags & WRITING or (isinstance(mode, str) and set(mode) & set("wax+")):
            seen.append(f"open {path!r} {mode!r}")
    elif event.startswith("socket.") or event in CHANGING:
        seen.append(f"{event} {arguments!r:.100}")
sys.addaudithook(watch)
exec(f"from {sys.argv[1]} import *")
if threading.active_count() > 1:
    seen.append(f"threads {threading.enumerate()}")
print(json.dumps(seen))
"""


def load_script(name: str) -> ModuleType:
    """Load a script that `make check` runs."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_wheel = load_script("check_wheel")
check_vulnerabilities = load_script("check_vulnerabilities")


def python(*arguments: str, path: Path) -> str:
    """Run a Python that imports from a folder, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    # A coverage run would put its own files, threads and time into the child's.
    for inherited in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COV_CORE_SOURCE"):
        environment.pop(inherited, None)
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def side_effects(module: str, path: Path) -> list[str]:
    """Import a module in a child; return what it wrote, started or connected."""
    done: list[str] = json.loads(python("-c", WATCH, module, path=path).splitlines()[-1])
    return done


def cpu_of_import(module: str, path: Path) -> float:
    """Measure the CPU seconds of a child that imports a module: the best of several."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python("-c", f"import {module}", path=path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # The first fills the byte code cache of the dependencies and the disk's.
    return min(once() for _ in range(TRIES))


def third_party_imports(source: str) -> Iterator[str]:
    """Yield the top modules that a source imports at run time from outside the package."""
    tree = ast.parse(source)
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for child in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "animica_hooks":
                yield top


def declared_names() -> set[str]:
    """Return the distributions that pyproject.toml declares, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    return {
        requirement.split(";")[0].split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        for requirement in requirements
    }


def test_importing_has_no_side_effects() -> None:
    """Importing animica_hooks writes no file, opens no socket, starts no thread or process."""
    assert side_effects("animica_hooks", ROOT) == []


@pytest.mark.parametrize(
    "source",
    [
        "open(__file__ + '.log', 'w')",
        "import os; os.open(__file__ + '.lock', os.O_CREAT | os.O_RDWR)",
        "import socket; socket.socket()",
        "import sqlite3; sqlite3.connect(':memory:')",
        "import threading; threading.Thread(target=threading.Event().wait, args=(1,)).start()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.environ['PLANTED'] = 'x'",
    ],
)
def test_a_planted_side_effect_is_seen(tmp_path: Path, source: str) -> None:
    """The watch over imports sees each kind of side effect."""
    (tmp_path / "planted.py").write_text(source, encoding="utf-8")

    assert side_effects("planted", tmp_path) != []


def test_importing_is_cheap() -> None:
    """A process that imports animica_hooks has used at most 150 ms of CPU."""
    assert cpu_of_import("animica_hooks", ROOT) <= IMPORT_CPU_S


def test_a_dear_import_is_seen(tmp_path: Path) -> None:
    """The measure counts the CPU that an import burns."""
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    (tmp_path / "planted.py").write_text(burn, encoding="utf-8")

    assert cpu_of_import("planted", tmp_path) > IMPORT_CPU_S


def test_the_version_is_one() -> None:
    """What the package says of its version is what its metadata says."""
    assert animica_hooks.__version__ == version("animica-hooks")


def test_every_import_is_declared() -> None:
    """Whatever the package imports is among its own dependencies, not only theirs."""
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]
    imported = {
        (module, str(path.relative_to(ROOT)))
        for path in sources
        for module in third_party_imports(path.read_text(encoding="utf-8"))
    }
    distributions = packages_distributions()
    declared = declared_names()

    undeclared = {
        (module, path)
        for module, path in imported
        if not declared.intersection(
            name.lower().replace("_", "-") for name in distributions.get(module, [module])
        )
    }

    assert undeclared == set()


def test_an_undeclared_import_is_seen() -> None:
    """The search for imports sees plain, dotted, from and late ones, and skips those for types."""
    source = (
        "import a.b, os\nfrom c.d import e\nfrom . import f\nimport animica_hooks.core\n"
        "def late():\n    import g\n"
        "if TYPE_CHECKING:\n    import h\n"
    )

    assert set(third_party_imports(source)) == {"a", "c", "g"}


def test_the_source_runs_no_code_from_data() -> None:
    """No module unpickles, evaluates text, or loads YAML: what is stored is never run."""
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]
    found = [
        problem
        for path in sources
        for problem in check_wheel.dangerous_code(path.read_text(encoding="utf-8"), path.name)
    ]

    assert sources != []
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import marshal",
        "import shelve",
        "eval('1')",
        "exec('x = 1')",
        "import builtins; builtins.exec('x = 1')",
        "import yaml; yaml.load('x')",
        "from yaml import load",
        "def late():\n    import dill",
    ],
)
def test_planted_code_from_data_is_seen(source: str) -> None:
    """The search for code run from data sees each kind of it."""
    assert list(check_wheel.dangerous_code(source, "planted.py")) != []


GOOD_WHEEL = frozenset(
    {
        *("animica_hooks/__init__.py", "animica_hooks/py.typed"),
        *("animica_hooks/migrations/env.py", "animica_hooks/migrations/script.py.mako"),
        "animica_hooks/migrations/versions/0001_create_inbox.py",
        "animica_hooks-0.1.0.dist-info/METADATA",
    }
)


def test_a_good_wheel_has_no_problems() -> None:
    """The list of files that a wheel should hold is accepted."""
    assert list(check_wheel.content_problems(GOOD_WHEEL)) == []


@pytest.mark.parametrize(
    ("more", "fewer"),
    [
        ({"animica_hooks.pth"}, set()),
        ({"animica_hooks/__pycache__/x.pyc"}, set()),
        ({"tests/test_x.py"}, set()),
        ({"animica_hooks-0.1.0.data/scripts/x"}, set()),
        (set(), {"animica_hooks/py.typed"}),
        (set(), {"animica_hooks/migrations/env.py"}),
        (set(), {"animica_hooks/migrations/versions/0001_create_inbox.py"}),
    ],
)
def test_a_bad_wheel_is_seen(more: set[str], fewer: set[str]) -> None:
    """A start-up hook, a stray or made file, a lost type marker or migration is named."""
    assert list(check_wheel.content_problems((GOOD_WHEEL | more) - fewer)) != []


def test_locks_name_no_host_and_hash_everything() -> None:
    """Each locked package is pinned and hashed, and no lock says where it came from."""
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        text = lock.read_text(encoding="utf-8")
        pins = [line for line in text.splitlines() if line and line[0] not in " #"]

        assert "://" not in text
        assert "--index" not in text
        assert "--find-links" not in text
        assert pins != []
        assert [pin for pin in pins if "==" not in pin or not pin.endswith("\\")] == []


@pytest.mark.parametrize(
    ("packages", "said", "code", "says"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], "", 0, "none known in 1 audited"),
        ([{"name": "a", "skip_reason": "not found"}], "", 0, "!!! CHECK LEFT OUT"),
        (None, "requests.exceptions.ConnectionError: no route", 0, "!!! CHECK LEFT OUT"),
        (None, "ERROR: invalid requirement", 1, "FAILED: pip-audit gave no verdict"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-0", "fix_versions": ["2"]}]}],
            "",
            1,
            "a 1: CVE-0, fixed in ['2']",
        ),
    ],
)
def test_vulnerabilities_fail_and_silence_is_loud(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[object] | None,
    said: str,
    code: int,
    says: str,
) -> None:
    """A known vulnerability fails the check; a service that does not answer leaves a banner."""
    answer = "" if packages is None else json.dumps({"dependencies": packages})
    monkeypatch.setattr(check_vulnerabilities, "audit", lambda locks: (answer, said))

    assert check_vulnerabilities.main() == code
    assert says in capsys.readouterr().out
