"""What one fsync costs here and now: the least that a durable answer to a single sender takes."""

import os
import time
from pathlib import Path
from statistics import median

TIMES = 50
# About what a commit of one event adds to a database's log.
BLOCK = os.urandom(4096)


def fsync_ms(directory: Path) -> float:
    """Return the median time of appending a block to a file and syncing it."""
    path = directory / "fsync"
    with path.open("wb", buffering=0) as file:
        found = median(_append(file.fileno()) for _ in range(TIMES))
    path.unlink()
    return found * 1e3


def _append(file: int) -> float:
    began = time.perf_counter()
    os.write(file, BLOCK)
    os.fsync(file)
    return time.perf_counter() - began
