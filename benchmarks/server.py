"""One contestant as processes of its own on loopback, with an empty directory to write in."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import databases
from benchmarks.apps.common import DIRECTORY_VARIABLE, PORT_VARIABLE
from benchmarks.contestants import Command, Contestant

START_SECONDS = 30
STOP_SECONDS = 15
POLL_SECONDS = 0.02


class ServerError(Exception):
    """A process did not start, is no longer there, or did not do its work."""


class Server:
    """A context manager: listening inside the block, gone after it."""

    def __init__(self, contestant: Contestant, directory: Path, *, wrapper: Command = ()) -> None:
        """Take the contestant and its directory; `wrapper` is a module that runs its server's."""
        self.contestant = contestant
        self.directory = directory
        self.log = directory / "server.log"
        self.port = _free_port()
        self._wrapper = wrapper
        self._environment = os.environ | {
            DIRECTORY_VARIABLE: str(directory),
            PORT_VARIABLE: str(self.port),
            **contestant.environment,
        }
        # The server, and what runs beside it.
        self._processes: list[subprocess.Popen[bytes]] = []
        self._at_end = ExitStack()

    def __enter__(self) -> Self:
        """Start the processes and wait until the server accepts connections."""
        try:
            if kind := self.contestant.database:
                self._environment |= self._at_end.enter_context(
                    databases.made(kind, self.directory)
                )
            for command in self.contestant.before:
                self._run(command)
            self._start((*self._wrapper, *self.contestant.server))
            for command in self.contestant.beside:
                self._start(command)
            self._wait_until_listening()
        except BaseException:
            self._at_end.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the processes."""
        self._at_end.close()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._processes[0].pid

    def check(self) -> None:
        """Raise if a process is no longer there."""
        if any(process.poll() is not None for process in self._processes):
            raise ServerError("the server died")

    def cpu_seconds(self) -> float:
        """Return the processor time used so far by all processes, user and system."""
        self.check()
        # Their own, and that of children that have ended.
        ticks = sum(sum(map(int, stat[11:15])) for _, stat in self._stats())
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_memory_mb(self) -> float:
        """Return the largest resident sets so far, of all processes together."""
        self.check()
        return sum(_peak_memory_mb(folder) for folder, _ in self._stats())

    def last_words(self, lines: int = 20) -> str:
        """Return the end of what was logged."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _command(self, command: Command) -> list[str]:
        places = {"port": self.port, "directory": self.directory}
        return [sys.executable, "-m", *(part.format(**places) for part in command)]

    def _run(self, command: Command) -> None:
        with self.log.open("ab") as log:
            subprocess.run(
                self._command(command),
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
                timeout=START_SECONDS,
            )

    def _start(self, command: Command) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._command(command),
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own has all its descendants in it, and nobody else.
                start_new_session=True,
            )
        self._processes.append(process)
        self._at_end.callback(_stop, process)

    def _stats(self) -> Iterator[tuple[Path, list[str]]]:
        sessions = {str(process.pid) for process in self._processes}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                # The process name, field two, may hold spaces: count from behind its parenthesis.
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                if stat[3] in sessions:
                    yield folder, stat

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(POLL_SECONDS)
        raise ServerError(f"the server did not listen within {START_SECONDS} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    # Whoever of its session is still there, itself included.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _peak_memory_mb(folder: Path) -> float:
    with suppress(OSError):
        for line in (folder / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
