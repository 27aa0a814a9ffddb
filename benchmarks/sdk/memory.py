"""What a process holds. Imported by what is measured, so it imports next to nothing."""

import os


def resident_mib() -> float:
    """Return the resident set, in MiB.

    From the mappings: the kernel's running counters, in `status`, may be off by hundreds of KiB.
    """
    # No pathlib, which not every client would have loaded.
    with open("/proc/self/smaps_rollup") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell the resident set")


def descriptors() -> int:
    """Return how many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
