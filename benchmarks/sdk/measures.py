"""What is measured, in which unit; of all of it, less is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of a client.

    Attributes:
        digits: after the point, in the table.
    """

    name: str
    about: str
    title: str
    unit: str
    digits: int = 0


IMPORT = Measure(
    name="import",
    title="import + client",
    about="processor time from nothing imported to a client",
    unit="ms",
)
FIRST_ANSWER = Measure(
    name="first-answer",
    title="first answer",
    about="processor time from the start of the process to its first answer",
    unit="ms",
)
MEMORY_CLIENT = Measure(
    name="memory-client",
    title="memory, client made",
    about="resident set of the whole process with a client",
    unit="MiB",
    digits=1,
)
MEMORY = Measure(
    name="memory",
    title="memory, first answer",
    about="resident set of the whole process after the first answer",
    unit="MiB",
    digits=1,
)
REQUEST = Measure(
    name="request", title="request", about="a chat request on a kept connection", unit="us"
)
IN_FLIGHT = Measure(
    name="in-flight",
    title="request, 64 in flight",
    about="the same with coroutines, 64 under way at any time",
    unit="us",
)
TLS = Measure(name="tls", title="request, TLS", about="`request` over TLS", unit="us")
BURST = Measure(
    name="burst",
    title="burst chunk",
    about="a chunk of a stream of 500 that comes all at once",
    unit="us",
    digits=1,
)
BURST_ASYNC = Measure(
    name="burst-async",
    title="burst chunk, async",
    about="`burst` in a coroutine",
    unit="us",
    digits=1,
)
LIVE = Measure(
    name="live",
    title="live chunk",
    about="a chunk of a stream that brings one every 2 ms",
    unit="us",
)
LIVE_ASYNC = Measure(
    name="live-async", title="live chunk, async", about="`live` in a coroutine", unit="us"
)
EMBEDDINGS = Measure(
    name="embeddings",
    title="embeddings, as numbers",
    about="16 vectors of 1,536 dimensions, sent as numbers (`encoding_format='float'`)",
    unit="us",
)
EMBEDDINGS_DEFAULT = Measure(
    name="embeddings-default",
    title="embeddings, by default",
    about="the same as the client asks by itself: openai for base64, the others for numbers",
    unit="us",
)
SOAK_MEMORY = Measure(
    name="soak-memory",
    title="soak: memory",
    about="growth over 4,000 requests, 10 streams of 5,000 chunks, 30 clients made and closed",
    unit="MiB",
    digits=2,
)
SOAK_MEMORY_ASYNC = Measure(
    name="soak-memory-async",
    title="soak: memory, async",
    about="`soak-memory` with coroutines, 50 requests at a time",
    unit="MiB",
    digits=2,
)
SOAK_AGAIN = Measure(
    name="soak-memory-again",
    title="soak: memory, once more",
    about="growth over the same again: a leak goes on, a heap that has found its size does not",
    unit="MiB",
    digits=2,
)
SOAK_AGAIN_ASYNC = Measure(
    name="soak-memory-again-async",
    title="soak: memory, once more, async",
    about="the same with coroutines",
    unit="MiB",
    digits=2,
)
SOAK_DESCRIPTORS = Measure(
    name="soak-descriptors",
    title="soak: descriptors",
    about="left open after that",
    unit="",
)
SOAK_DESCRIPTORS_ASYNC = Measure(
    name="soak-descriptors-async",
    title="soak: descriptors, async",
    about="left open after that",
    unit="",
)

STARTS = (IMPORT, FIRST_ANSWER, MEMORY_CLIENT, MEMORY)
WORK = (
    REQUEST,
    IN_FLIGHT,
    TLS,
    BURST,
    BURST_ASYNC,
    LIVE,
    LIVE_ASYNC,
    EMBEDDINGS,
    EMBEDDINGS_DEFAULT,
)
SOAKS = (
    SOAK_MEMORY,
    SOAK_MEMORY_ASYNC,
    SOAK_AGAIN,
    SOAK_AGAIN_ASYNC,
    SOAK_DESCRIPTORS,
    SOAK_DESCRIPTORS_ASYNC,
)
ALL = (*STARTS, *WORK, *SOAKS)
