"""Programs from npm that tests use: each in a folder with its lock, installed when first needed."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path


def installed(folder: Path, name: str) -> Path:
    """Install what a folder's lock names, unless it is there, and return a package's folder.

    One test process at a time.
    """
    package = folder / "node_modules" / name
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = json.load(lock)["packages"][f"node_modules/{name}"]["version"]
        manifest = package / "package.json"
        if not manifest.exists() or json.loads(manifest.read_text())["version"] != locked:
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=folder, check=True)
    return package
