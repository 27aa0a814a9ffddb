"""What it takes from nothing to a client, and to its first answer: a fresh process each time."""

from __future__ import annotations

from benchmarks.sdk.contestants import Contestant
from benchmarks.sdk.crew import Breakdown, run_once
from benchmarks.sdk.serving import Serving

# `time` and `sys` are in the interpreter already: nothing is loaded before the client.
PROGRAM = """
import sys, time
began = time.process_time()
module = __import__("benchmarks.sdk.clients." + sys.argv[1], fromlist=["make"])
client = module.make(sys.argv[2])
made = time.process_time() - began
from benchmarks.sdk.memory import resident_mib
memory_made = resident_mib()
aside = time.process_time() - began - made
answer = module.ask(client)
answered = time.process_time() - aside
memory = resident_mib()
from benchmarks.sdk.asked import ANSWER
if answer != ANSWER:
    raise SystemExit("wrong answer")
module.close(client)
import json
print(json.dumps([made * 1e3, memory_made, answered * 1e3, memory]))
"""
# What the interpreter takes by itself, for comparison.
EMPTY = """
import time
began = time.process_time()
from benchmarks.sdk.memory import resident_mib
memory = resident_mib()
import json
print(json.dumps([0.0, memory, began * 1e3, memory]))
"""

MEASURES = ("import", "memory-client", "first-answer", "memory")
PYTHON = "python"


def start(contestant: Contestant, serving: Serving) -> dict[str, float] | Breakdown:
    """Measure one start; keys are MEASURES."""
    try:
        found = run_once(contestant, "-c", PROGRAM, contestant.module, serving.url)
    except Breakdown as breakdown:
        return breakdown
    return dict(zip(MEASURES, found, strict=True))


def start_nothing(contestant: Contestant) -> dict[str, float]:
    """Measure the interpreter alone, in this contestant's environment."""
    return dict(zip(MEASURES, run_once(contestant, "-c", EMPTY), strict=True))
