"""uvicorn under a profiler: SIGUSR1 starts it, SIGUSR2 stops it and writes `profile`.

By signals, so that neither imports nor start-up are in the figures. Used by profile.py.
"""

import cProfile
import signal
from types import FrameType

import uvicorn

from benchmarks.apps.common import directory

PROFILE = "profile"

profiler = cProfile.Profile()


def start(_: int, __: FrameType | None) -> None:
    profiler.enable()


def stop(_: int, __: FrameType | None) -> None:
    profiler.disable()
    unfinished = directory() / "profile.unfinished"
    profiler.dump_stats(unfinished)
    unfinished.replace(directory() / PROFILE)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, start)
    signal.signal(signal.SIGUSR2, stop)
    uvicorn.main()
