"""The processes that clients run in, as the measuring one sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.sdk.contestants import Contestant
from benchmarks.sdk.serving import Serving

ROOT = Path(__file__).parents[2]
# What would send clients through a proxy, or change what they trust.
LEFT_OUT = ("_proxy", "ssl_cert_file", "ssl_cert_dir")
PATIENCE_SECONDS = 120


class Breakdown(Exception):
    """A client's process ended, or did not answer."""


def environment(contestant: Contestant) -> dict[str, str]:
    """Return the environment of a client's process."""
    kept = {
        name: value for name, value in os.environ.items() if not name.lower().endswith(LEFT_OUT)
    }
    return kept | contestant.environment


def run_once(contestant: Contestant, *arguments: str) -> Any:
    """Run Python in a fresh process and return the JSON that it prints."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(contestant),
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Breakdown(f"did not end within {PATIENCE_SECONDS} s") from None
    if done.returncode != 0:
        raise Breakdown(f"ended with status {done.returncode}")
    return json.loads(done.stdout)


class Member:
    """One client's process, waiting for what to do."""

    def __init__(self, contestant: Contestant, serving: Serving) -> None:
        self.contestant = contestant
        where = (serving.url, serving.secure_url, str(serving.authority))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sdk.worker", contestant.module, *where],
            cwd=ROOT,
            env=environment(contestant),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, name: str, seconds: float) -> dict[str, Any]:
        """Return what worker.py answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([name, seconds]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"failure": "the process died"}
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"failure": "the process died"}
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def crew(contestants: Sequence[Contestant], serving: Serving) -> Iterator[list[Member]]:
    """Start a process for each, for one round."""
    members: list[Member] = []
    try:
        # One by one, so that those already started are ended if the next one can not be.
        members.extend(Member(contestant, serving) for contestant in contestants)
        yield members
    finally:
        for member in members:
            member.close()
