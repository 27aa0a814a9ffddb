"""Says what a run was measured on."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from benchmarks import databases


def describe(packages: Iterable[str], kinds: Iterable[str] = ()) -> dict[str, str]:
    """Return the facts: the machine, the versions of those that are there, the servers."""
    return {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        **{name: found for name in packages if (found := _version(name))},
        **{kind: databases.describe(kind) for kind in kinds},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
