"""What the server answers: whole HTTP answers, put together once, before anything is measured."""

from __future__ import annotations

import json
import random
import struct
from base64 import b64encode

from benchmarks.sdk.asked import ANSWER, CHUNKS, DIMENSIONS, TEXTS, TOKEN

CREATED = 1_790_000_000
# What the APIs' answers carry beside their type and length: a client that parses headers has some.
HEADERS = (
    "date: Sat, 21 Nov 2026 12:00:00 GMT",
    "server: bench",
    "x-request-id: req_8f2b5a6c7d1e4f3a9b0c",
    "request-id: req_8f2b5a6c7d1e4f3a9b0c",
    "openai-processing-ms: 42",
    "x-ratelimit-limit-requests: 10000",
    "x-ratelimit-remaining-requests: 9999",
    "x-ratelimit-reset-requests: 6ms",
    "cache-control: no-cache",
)
USAGE = {"prompt_tokens": 31, "completion_tokens": 43, "total_tokens": 74}

Streams = dict[str, list[bytes]]


def whole(body: bytes, status: str = "200 OK") -> bytes:
    """Return an answer with a JSON body."""
    return _head(status, "content-type: application/json", f"content-length: {len(body)}") + body


STREAM_HEAD_LINES = ("content-type: text/event-stream", "transfer-encoding: chunked")
LAST_CHUNK = b"0\r\n\r\n"


def _head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, *HEADERS, "", ""]).encode()


def stream_head() -> bytes:
    """Return the head of a stream."""
    return _head("200 OK", *STREAM_HEAD_LINES)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _framed(event: bytes) -> bytes:
    # Each event in a chunk of its own, as servers send them.
    return b"%x\r\n%b\r\n" % (len(event), event)


def chat() -> bytes:
    """Return an answer of OpenAI's API."""
    message: dict[str, object] = {
        "role": "assistant",
        "content": ANSWER,
        "refusal": None,
        "annotations": [],
    }
    return whole(
        _compact(
            {
                "id": "chatcmpl-8f2b5a6c7d1e4f3a9b0c",
                "object": "chat.completion",
                "created": CREATED,
                "model": "small-2026-11-01",
                "choices": [
                    {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
                ],
                "usage": USAGE,
                "service_tier": "default",
                "system_fingerprint": "fp_44709d6fcb",
            }
        )
    )


def message() -> bytes:
    """Return an answer of Anthropic's API."""
    return whole(
        _compact(
            {
                "id": "msg_8f2b5a6c7d1e4f3a9b0c",
                "type": "message",
                "role": "assistant",
                "model": "small-2026-11-01",
                "content": [{"type": "text", "text": ANSWER}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 31, "output_tokens": 43},
            }
        )
    )


def chat_streams() -> Streams:
    """Return, for each model that streams, the pieces of a stream of OpenAI's API."""
    first = _chunk({"role": "assistant", "content": ""}, None)
    each = _chunk({"content": TOKEN}, None)
    ending = [_chunk({}, "stop"), _framed(b"data: [DONE]\n\n") + LAST_CHUNK]
    return {model: [first, *[each] * count, *ending] for model, count in CHUNKS.items()}


def _chunk(delta: dict[str, str], finish_reason: str | None) -> bytes:
    chunk = {
        "id": "chatcmpl-8f2b5a6c7d1e4f3a9b0c",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "small-2026-11-01",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return _framed(b"data: " + _compact(chunk) + b"\n\n")


def message_streams() -> Streams:
    """Return, for each model that streams, the pieces of a stream of Anthropic's API."""
    started: dict[str, object] = {
        "id": "msg_8f2b5a6c7d1e4f3a9b0c",
        "type": "message",
        "role": "assistant",
        "model": "small-2026-11-01",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 31, "output_tokens": 1},
    }
    opening = [
        _event("message_start", message=started),
        _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    each = _event("content_block_delta", index=0, delta={"type": "text_delta", "text": TOKEN})
    stopped = {"stop_reason": "end_turn", "stop_sequence": None}
    ending = [
        _event("content_block_stop", index=0),
        _event("message_delta", delta=stopped, usage={"output_tokens": 43}),
        _event("message_stop") + LAST_CHUNK,
    ]
    return {model: [*opening, *[each] * count, *ending] for model, count in CHUNKS.items()}


def _event(kind: str, **fields: object) -> bytes:
    data = _compact({"type": kind, **fields})
    return _framed(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))


def embeddings(*, as_base64: bool) -> bytes:
    """Return the vectors of all texts: as numbers, or as base64 of their 4-byte floats."""
    vectors = [_vector(number) for number in range(len(TEXTS))]
    items = [
        {"object": "embedding", "index": index, "embedding": _base64(v) if as_base64 else v}
        for index, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 96, "total_tokens": 96}
    return whole(_compact({"object": "list", "data": items, "model": "small", "usage": usage}))


def _vector(number: int) -> list[float]:
    numbers = random.Random(number)
    # The first is what clients are checked by, exact in four bytes.
    return [0.5, *(round(numbers.uniform(-0.1, 0.1), 8) for _ in range(DIMENSIONS - 1))]


def _base64(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
