"""``ours`` with a flaw of known size, which PLANTED names: see self_check.py."""

from __future__ import annotations

import os
import time

from animica_hooks.sdk import Animica
from benchmarks.sdk import asked
from benchmarks.sdk.clients import ours

REQUEST_SECONDS = 300e-6
CHUNK_SECONDS = {"chunk": 20e-6, "live-chunk": 200e-6}
IMPORT_SECONDS = 0.1
KEPT_BYTES = 2_000

FLAW = os.environ["PLANTED"]
kept: list[object] = []


def burn(seconds: float) -> None:
    """Use processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


if FLAW == "import":
    burn(IMPORT_SECONDS)


def make(url: str) -> Animica:
    if FLAW == "descriptors":
        kept.append(os.dup(0))
    return ours.make(url)


def ask(client: Animica) -> str | None:
    if FLAW == "request":
        burn(REQUEST_SECONDS)
    elif FLAW == "memory":
        kept.append(bytes(KEPT_BYTES))
    elif FLAW == "dies":
        os._exit(1)
    return None if FLAW == "wrong" else ours.ask(client)


def stream(client: Animica, model: str) -> int:
    size = 0
    for chunk in client.chat.completions.create(model=model, messages=asked.MESSAGES, stream=True):
        if FLAW in CHUNK_SECONDS:
            burn(CHUNK_SECONDS[FLAW])
        if content := chunk.choices[0].delta.content:
            size += len(content)
        if FLAW == "short":
            break
    return size


close = ours.close
make_async = ours.make_async
ask_async = ours.ask_async
stream_async = ours.stream_async
close_async = ours.close_async
