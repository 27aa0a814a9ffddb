"""The watch over all that tests and their processes say is able to find a secret in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SAYING = """
import logging, sys

SECRET = "whsec_" + "CANARY-0"

def test_says_nothing(tmp_path):
    print("whsec_ and canary")

def test_prints(tmp_path):
    print(SECRET)

def test_complains():
    sys.stderr.write("anm_live_" + "CANARY")

def test_logs():
    logging.getLogger("x").warning("%s", SECRET)

def test_has_a_process_that_logs(tmp_path):
    (tmp_path / "serve.log").write_text(SECRET)
"""


def test_a_secret_that_is_said_aloud_fails_its_test(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """On standard output, standard error, in the log, or in that of a process; and nothing else."""
    folder = tmp_path_factory.mktemp("saying")
    (folder / "test_says.py").write_text(SAYING)
    # In CI its summary would tell each of them again.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rE", "-p", "conftest", "-p", "no:cacheprovider",
         "-c", os.devnull, "--rootdir", folder, "--basetemp", folder / "of it", folder],
        env={**environment, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    failed = re.findall(r"^ERROR \S*test_says\.py::(\w+)", ended.stdout, re.MULTILINE)
    expected = ["test_prints", "test_complains", "test_logs", "test_has_a_process_that_logs"]
    assert expected == failed, ended.stdout + ended.stderr
    assert 4 == ended.stdout.count("secrets were said aloud")
