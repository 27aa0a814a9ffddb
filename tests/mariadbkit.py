"""A MariaDB server of the tests' own: for settings and accidents that others must not suffer."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import create_engine, text

START_S = 30.0
# Small, because each test's server is a copy.
_SMALL = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M", "--skip-networking")


def installed() -> bool:
    return all(shutil.which(program) for program in ("mariadbd", "mariadb-install-db"))


def install(data: Path) -> None:
    """Make the files of a new server, whose root needs no password."""
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            *_user(),
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            _SMALL[0],
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class OwnMariadb:
    """A server that listens on a socket file.

    Attributes:
        url: of an empty database, as its root.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._socket = data / "s"
        self.url = f"mariadb://root@/hooks?unix_socket={self._socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.run("CREATE DATABASE hooks", database="")

    def start(self, *options: str) -> None:
        command = [
            "mariadbd", "--no-defaults", *_user(), *_SMALL, f"--datadir={self._data}",
            f"--socket={self._socket}", f"--pid-file={self._data / 'pid'}", *options,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        give_up_at = time.monotonic() + START_S
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(self._socket))
                return
            except OSError:
                if time.monotonic() > give_up_at or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._socket.unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def run(self, statement: str, database: str = "hooks") -> None:
        url = f"mysql+pymysql://root@/{database}?unix_socket={self._socket}"
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def _user() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []
