"""The types are what ``tests/typing`` says, to mypy and to pyright, each at its strictest.

The files say of each line that must be wrong that it is, in a comment for mypy. Here they are
checked without these comments: each such line, and no other, is an error. Where a type is revealed
otherwise than ``assert_type`` has it, that is another error.

pyright needs node and npm.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from node_packages import installed

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"  # type: ignore\[(?P<code>[a-z-]+)\]$", re.MULTILINE)

# A file's name, the number of a line, and mypy's code for its error.
Wrong = tuple[str, int, str]


@pytest.fixture
def marked(tmp_path: Path) -> set[Wrong]:
    """The lines that are to be errors, of files that are copied without saying so."""
    found = set()
    for file in (ROOT / "tests" / "typing").glob("sdk_*.py"):
        source = file.read_text(encoding="utf-8")
        (tmp_path / file.name).write_text(MARK.sub("", source), encoding="utf-8")
        for number, line in enumerate(source.splitlines(), start=1):
            if match := MARK.search(line):
                found.add((file.name, number, match["code"]))
    return found


def checked(command: list[str], folder: Path) -> str:
    """Run a checker that finds errors, and return what it prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_finds_what_is_marked(tmp_path: Path, marked: set[Wrong]) -> None:
    """Each marked line has its error, and there is no other."""
    files = sorted(map(str, tmp_path.glob("*.py")))
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--strict", "--output", "json"]
    # Its cache holds the package's dependencies from one run to the next.
    printed = checked([sys.executable, "-m", "mypy", *options, *files], ROOT)
    told = [json.loads(line) for line in printed.splitlines()]

    found = {
        (Path(one["file"]).name, one["line"], one["code"])
        for one in told
        if one["severity"] == "error"
    }
    assert marked == found


def test_pyright_finds_what_is_marked(tmp_path: Path, marked: set[Wrong]) -> None:
    """The other checker has errors on the same lines, and on no other."""
    package = installed(Path(__file__).resolve().parent / "pyright", "pyright")
    settings: dict[str, Any] = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["node", str(package / "index.js"), "--outputjson", "--pythonpath", sys.executable]
    told = json.loads(checked(command, tmp_path))["generalDiagnostics"]

    found = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"]) for one in told
    }
    lines = {(name, number) for name, number, _ in marked}
    assert [] == sorted(one for one in found if one[:2] not in lines)
    assert lines == {one[:2] for one in found}
