"""An app whose handlers fail, take their time and kill their process; it notes what they do."""

import asyncio
import os
import random
from pathlib import Path

from animica_hooks import Event, Hooks, RetryPolicy

FOLDER = Path(os.environ["ORDER_FOLDER"])

hooks = Hooks(
    routers=[],
    lease=1.0,
    concurrency=8,
    retry=RetryPolicy(max_attempts=1000, base=0.01, max_delay=0.05),
)


def note(*words: object) -> None:
    """Append a line, whole, to what all processes note together."""
    line = " ".join(str(word) for word in words) + "\n"
    with (FOLDER / "notes").open("ab", buffering=0) as notes:
        notes.write(line.encode())


@hooks.on("step", name="steps", key=lambda event: event.data["key"])
async def steps(event: Event) -> None:
    note("begin", event.data["key"], event.data["n"])
    await asyncio.sleep(random.random() * 0.01)
    chance = random.random()
    if chance < 0.02:
        os._exit(1)
    if chance < 0.2:
        raise ValueError("once more")
    note("end", event.data["key"], event.data["n"])


@hooks.on("limited", name="limited", concurrency=2)
async def limited(event: Event) -> None:
    note("enter", event.id)
    await asyncio.sleep(0.02)
    note("leave", event.id)
