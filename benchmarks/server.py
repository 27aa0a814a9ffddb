"""One contestant as its own process on loopback, with an empty directory to write in.

Ours is served by `animica-hooks serve`, what it is compared with by plain uvicorn (plain.py).
"""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import databases
from benchmarks.apps.common import DIRECTORY_VARIABLE
from benchmarks.contestants import Contestant

START_SECONDS = 30
STOP_SECONDS = 15
POLL_SECONDS = 0.02


class ServerError(Exception):
    """The server process did not start, or is no longer there."""


class Server:
    """A context manager: listening inside the block, gone after it."""

    def __init__(
        self, contestant: Contestant, directory: Path, *, wrapper: tuple[str, ...] = ()
    ) -> None:
        """Take the contestant and its directory; `wrapper` is a module that runs its server's."""
        self.contestant = contestant
        self.directory = directory
        self.log = directory / "server.log"
        self.port = _free_port()
        self._modules = (*wrapper, *contestant.server)
        self._at_end = ExitStack()

    def __enter__(self) -> Self:
        """Start the process and wait until it accepts connections."""
        environment = {DIRECTORY_VARIABLE: str(self.directory), **self.contestant.environment}
        if kind := self.contestant.database:
            environment |= self._at_end.enter_context(databases.made(kind, self.directory))
        command = [sys.executable, "-m", *self._modules, self.contestant.app]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._at_end.callback(self._stop)
        try:
            self._wait_until_listening()
        except ServerError:
            self._at_end.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the process."""
        self._at_end.close()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise if the process is no longer there."""
        if self._process.poll() is not None:
            raise ServerError("the server died")

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, of all its threads, user and system."""
        self.check()
        # The process name, field two, may hold spaces: count from behind its parenthesis.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / os.sysconf("SC_CLK_TCK")

    def peak_memory_mb(self) -> float:
        """Return the largest resident set so far."""
        self.check()
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise ServerError("the server's memory is not known")

    def last_words(self, lines: int = 20) -> str:
        """Return the end of what it logged."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(POLL_SECONDS)
        raise ServerError(f"the server did not listen within {START_SECONDS} s")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
