"""Runs an example the way its first lines say."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from animica_hooks.testing import make_event, sign

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECRET = "whsec_CANARY-for-the-tests-of-the-examples"
PATIENCE_S = 30.0


class Example:
    """An example that runs behind uvicorn, in an empty directory of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int, receives_at: str) -> None:
        self._process = process
        self._receives_at = receives_at
        self._client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S
        )
        self._output = ""

    def stop(self) -> str:
        """Stop it as an operator does; return all that it has printed."""
        self._client.close()
        if self._process.returncode is None:
            self._process.terminate()
            self._output, _ = self._process.communicate(timeout=PATIENCE_S)
        return self._output

    def get(self, path: str) -> httpx2.Response:
        return self._client.get(path)

    def deliver(self, type: str, data: object = None, **fields: Any) -> int:
        """Deliver an event, and return the status of the answer."""
        return self.post(body := make_event(type, data, **fields), sign(body, SECRET))

    def post(self, body: bytes, signature: str) -> int:
        headers = {"X-Animica-Signature": signature}
        return self._client.post(self._receives_at, content=body, headers=headers).status_code


@contextmanager
def running(
    name: str, receives_at: str, directory: Path, *, app_dir: Path = EXAMPLES
) -> Iterator[Example]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", name, "--fd", str(listening.fileno()),
             "--app-dir", str(app_dir), "--lifespan", "on"],
            cwd=directory,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("ANIMICA_HOOKS_")},
                "ANIMICA_HOOKS_SIGNING_SECRET": SECRET,
                "PYTHONUNBUFFERED": "1",
            },
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
    example = Example(process, port, receives_at)
    try:
        yield example
    finally:
        example.stop()


def eventually(look: Callable[[], object], expected: object) -> None:
    """Wait until a look shows what is expected; fail with what it shows instead."""
    give_up_at = time.monotonic() + PATIENCE_S
    while (seen := look()) != expected and time.monotonic() < give_up_at:
        time.sleep(0.02)
    assert expected == seen
