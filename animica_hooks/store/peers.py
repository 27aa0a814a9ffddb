"""What the processes at one SQLite file share beside it: a clock, and a bell.

Rule 1: time runs on from when the first of the processes opened the file, by the machine's
        monotonic clock. Whoever joins takes over the reckoning, so that setting the wall clock
        neither ends leases nor puts off retries. It is read again when none of them is left.
Rule 2: the bell is a hint. It tells that jobs were made that nobody holds; one that is missed costs
        a poll.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

_NUMBER = struct.Struct("=q")
_OFFSET_AT, _RUNG_AT = 0, _NUMBER.size


class Peers:
    """One process among those at a database file.

    Args:
        path: of a file of its own, made when it is joined.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._offset = _wall_offset()
        self._seen = b""

    def now(self) -> int:
        """Return the time in microseconds, the same in all of the processes."""
        return _monotonic() + self._offset

    def join(self) -> bool:
        """Take part until ``leave``; return whether nobody else does. Only one at a time."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        if alone:
            os.pwrite(self._file, _NUMBER.pack(_wall_offset()), _OFFSET_AT)
        fcntl.flock(self._file, fcntl.LOCK_SH)
        [self._offset] = _NUMBER.unpack(os.pread(self._file, _NUMBER.size, _OFFSET_AT))
        self._seen = self._rung()
        return alone

    def leave(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def ring(self) -> None:
        """Tell the others that there may be something to do."""
        if self._file is not None:
            self._seen = _NUMBER.pack(time.monotonic_ns())
            os.pwrite(self._file, self._seen, _RUNG_AT)

    def heard(self) -> bool:
        """Tell whether another has rung since this was last asked."""
        rung = self._rung()
        if rung == self._seen:
            return False
        self._seen = rung
        return True

    def _rung(self) -> bytes:
        return b"" if self._file is None else os.pread(self._file, _NUMBER.size, _RUNG_AT)


def _monotonic() -> int:
    return time.monotonic_ns() // 1000  # of the machine, not of the process


def _wall_offset() -> int:
    return time.time_ns() // 1000 - _monotonic()
