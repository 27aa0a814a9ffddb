"""What every contestant is told: the signing secret, where it may write, and its database."""

import os
from pathlib import Path

SIGNING_SECRET = "whsec_for_benchmarks_on_loopback_only"
DIRECTORY_VARIABLE = "BENCHMARK_DIRECTORY"
PORT_VARIABLE = "BENCHMARK_PORT"
URL_VARIABLE = "BENCHMARK_DATABASE_URL"
HANDLERS_VARIABLE = "BENCHMARK_HANDLERS"


def directory() -> Path:
    """Return the directory, empty at start, where this server process keeps its database."""
    return Path(os.environ[DIRECTORY_VARIABLE])


def database_url(*, sqlite: str = "sqlite", postgresql: str = "postgresql") -> str:
    """Return the URL of a database on a server, or else of a file; each with its own scheme."""
    url = os.environ.get(URL_VARIABLE)
    if url is None:
        return f"{sqlite}:///{directory() / 'x.db'}"
    return url.replace("postgresql:", f"{postgresql}:", 1)
