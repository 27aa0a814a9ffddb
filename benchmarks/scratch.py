"""Where servers keep their databases during a run: on the disk that this folder is on."""

import subprocess
from pathlib import Path

FOLDER = Path(__file__).with_name(".scratch")
IN_MEMORY = ("tmpfs", "ramfs")


def folder() -> Path:
    """Return the folder, made if need be; refuse one in memory, where an fsync costs nothing."""
    FOLDER.mkdir(exist_ok=True)
    command = ["stat", "--file-system", "--format=%T", str(FOLDER)]
    kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if kind in IN_MEMORY:
        raise SystemExit(f"{FOLDER} is on {kind}: durability would cost nothing there")
    return FOLDER
