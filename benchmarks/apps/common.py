"""What every contestant is told: the signing secret, and the directory it may write in."""

import os
from pathlib import Path

SIGNING_SECRET = "whsec_for_benchmarks_on_loopback_only"
DIRECTORY_VARIABLE = "BENCHMARK_DIRECTORY"


def directory() -> Path:
    """Return the directory, empty at start, where this server process keeps its database."""
    return Path(os.environ[DIRECTORY_VARIABLE])
