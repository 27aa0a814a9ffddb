"""A server's module under a profiler: SIGUSR1 starts it, SIGUSR2 stops it and writes `profile`.

By signals, so that neither imports nor start-up are in the figures. Used by profile.py.
"""

import cProfile
import runpy
import signal
import sys
from types import FrameType

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
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
