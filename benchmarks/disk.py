"""What one fsync costs here and now: the least that a durable answer to a single sender takes."""

import os
import time
from pathlib import Path
from statistics import median

TIMES = 50
# About what a commit of one event adds to a database's log.
BLOCK = os.urandom(4096)


def fsync_ms(directory: Path) -> float:
    """Return the median time of writing a block and syncing it.

    The file is as long beforehand, as databases keep their logs: a file that grows takes longer.
    """
    path = directory / "fsync"
    with path.open("wb", buffering=0) as file:
        file.write(bytes(TIMES * len(BLOCK)))
        os.fsync(file.fileno())
        found = median(_write(file.fileno(), turn) for turn in range(TIMES))
    path.unlink()
    return found * 1e3


def _write(file: int, turn: int) -> float:
    began = time.perf_counter()
    os.pwrite(file, BLOCK, turn * len(BLOCK))
    os.fdatasync(file)
    return time.perf_counter() - began
