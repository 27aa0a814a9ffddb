"""Build the wheel twice from differing copies, compare and inspect it, and use it in a clean place.

Run by ``make check`` with the project's ``.venv``; prints one line a check, exits 1 on a failure.
"""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
# 2020-02-02: any fixed moment that a zip archive can hold.
SOURCE_DATE_EPOCH = "1580601600"

# These run code that a stored or received value names.
DANGEROUS_MODULES = frozenset({"cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve"})
DANGEROUS_CALLS = frozenset(
    {
        "builtins.eval",
        "builtins.exec",
        "eval",
        "exec",
        "yaml.full_load",
        "yaml.load",
        "yaml.load_all",
        "yaml.unsafe_load",
    }
)
# What the package cannot work without.
REQUIRED_FILES = frozenset(
    {
        "animica_hooks/__init__.py",
        "animica_hooks/py.typed",
        "animica_hooks/migrations/env.py",
        "animica_hooks/migrations/script.py.mako",
    }
)


def dangerous_code(source: str, name: str) -> Iterator[str]:
    """Yield "file:line: what" for each import or call that can run code from data."""
    for node in ast.walk(ast.parse(source, name)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [a.name for a in node.names if a.name.split(".")[0] in DANGEROUS_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            bad_module = node.module.split(".")[0] in DANGEROUS_MODULES
            found = [name for name in whole if bad_module or name in DANGEROUS_CALLS]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in DANGEROUS_CALLS:
            found = [f"{ast.unparse(node.func)}()"]
        for what in found:
            yield f"{name}:{getattr(node, 'lineno', 0)}: {what}"


def content_problems(names: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with the list of a wheel's files."""
    for missing in sorted(REQUIRED_FILES.difference(names)):
        yield f"{missing} is missing"
    if not any(
        name.startswith("animica_hooks/migrations/versions/") and name.endswith(".py")
        for name in names
    ):
        yield "no migration is shipped"
    for name in sorted(names):
        top = name.split("/")[0]
        if name.endswith(".pth"):
            yield f"{name}: runs at every start of the interpreter"
        elif "__pycache__" in name or name.endswith((".pyc", ".so", ".db")):
            yield f"{name}: is made, not written"
        elif top != "animica_hooks" and not top.endswith(".dist-info"):
            yield f"{name}: lies outside the package"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command to its end, silently unless it fails; return its standard output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "UV_SYSTEM_CERTS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        line = " ".join(map(str, command))
        sys.exit(f"FAILED: {line} (exit {done.returncode})\n{done.stdout}{done.stderr}")
    return done.stdout


def copy_sources(target: Path) -> None:
    """Copy what git tracks or would track, so that nothing made here ends up in a wheel."""
    listed = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    ).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def make_different(tree: Path) -> None:
    """Change all that a reproducible build ignores: times and permissions."""
    for path in tree.rglob("*"):
        if path.is_file():
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            os.utime(path, (1_000_000_000, 1_000_000_000))


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a wheel or an sdist of the tree; return the file made."""
    run(
        *(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target),
        cwd=source,
        SOURCE_DATE_EPOCH=SOURCE_DATE_EPOCH,
    )
    (made,) = target.iterdir()
    return made


def check_reproducible(work: Path) -> Path:
    """Build two wheels and one more from the sdist: all must be the same bytes; return one."""
    here, there = work / "here", work / "elsewhere" / "deeper"
    copy_sources(here)
    shutil.copytree(here, there)
    make_different(there)
    first = build("wheel", here, work / "wheel-1")
    second = build("wheel", there, work / "wheel-2")
    sdist_1 = build("sdist", here, work / "sdist-1")
    sdist_2 = build("sdist", there, work / "sdist-2")
    shutil.unpack_archive(sdist_1, work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    third = build("wheel", unpacked, work / "wheel-3")
    for made, other in ((first, second), (sdist_1, sdist_2), (first, third)):
        if made.name != other.name or made.read_bytes() != other.read_bytes():
            sys.exit(f"FAILED: {made.parent.name} and {other.parent.name} differ: {made.name}")
    print(f"reproducible: {first.name} (also from its sdist), {sdist_1.name}")
    return first


def check_content(wheel: Path) -> None:
    """Look at the list of files, and at every line of Python."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        problems = list(content_problems(names))
        for name in names:
            content = archive.read(name)
            if name.endswith(".py"):
                problems += dangerous_code(content.decode(), name)
            if str(wheel.parent.parent).encode() in content or str(ROOT).encode() in content:
                problems.append(f"{name}: holds a path of the machine that built it")
    if problems:
        sys.exit("FAILED: the wheel's content\n  " + "\n  ".join(problems))
    print(f"content: {len(names)} files, typed, with migrations, no .pth, no code run from data")


def check_installed(wheel: Path, work: Path) -> None:
    """Install the wheel without extras into a clean environment, and use it away from here."""
    uv, venv, empty = SCRIPTS / "uv", work / "venv", work / "empty"
    empty.mkdir()
    run(uv, "venv", "--quiet", "--no-project", "--python", sys.executable, venv, cwd=empty)
    run(
        *(uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python"),
        *("--constraint", ROOT / "requirements" / "run.txt", wheel),
        cwd=empty,
    )
    python, command = venv / "bin" / "python", venv / "bin" / "animica-hooks"
    where = run(python, "-I", "-c", "import animica_hooks as a; print(a.__file__)", cwd=empty)
    if not where.startswith(str(venv)):
        sys.exit(f"FAILED: imported from {where.strip()}, not from the wheel")
    run(command, "--help", cwd=empty)
    run(python, "-I", "-m", "animica_hooks", "--help", cwd=empty)
    run(command, "db", "upgrade", "--database-url", "sqlite:///new.db", cwd=empty)
    if list(empty.iterdir()) == []:
        sys.exit("FAILED: `db upgrade` made no database")
    print("installed: imports, shows its help, makes a database from its own migrations")


def main() -> None:
    """Run every check, cheapest first."""
    with tempfile.TemporaryDirectory(prefix="animica-hooks-wheel-") as name:
        work = Path(name).resolve()
        wheel = check_reproducible(work)
        check_content(wheel)
        check_installed(wheel, work)


if __name__ == "__main__":
    main()
