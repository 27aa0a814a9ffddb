"""The OpenAI-compatible shapes that Animica, Andy API and Anannas share.

Shapes: https://platform.openai.com/docs/api-reference/chat/object, .../chat/streaming,
.../completions/object, .../embeddings/object, .../models/object.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

from apiserver import model
from apiserver.answer import DONE, Answer, Event, Refusal

# Small, unlike real models, so that a test can print it; `dimensions` asks for another.
EMBEDDING_SIZE = 8

FINISH = {"end": "stop", "stop": "stop", "length": "length"}


def require(body: dict[str, Any], **fields: type | tuple[type, ...]) -> None:
    """Refuse a body that lacks a field or has one of another type."""
    for name, kind in fields.items():
        if name not in body:
            raise Refusal(400, f"Missing required parameter: '{name}'.", param=name)
        if not isinstance(body[name], kind) or body[name] in ("", []):
            raise Refusal(400, f"Invalid value for '{name}'.", param=name)


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return the usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def stops(body: dict[str, Any]) -> list[str]:
    """Return the stop sequences, given as one or as a list."""
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else stop


def limit(body: dict[str, Any]) -> int | None:
    """Return the limit of tokens, under its old or its new name."""
    return body.get("max_completion_tokens", body.get("max_tokens"))


def chat(body: dict[str, Any], *, identity: str, created: int, reply: str | None) -> Answer:
    """Answer a chat completion, or its stream."""
    require(body, model=str, messages=list)
    if not 0 <= (body.get("temperature") or 0) <= 2:
        raise Refusal(400, "'temperature' must be between 0 and 2.", param="temperature")
    message, finish, tokens = _message(body, reply)
    spent = usage(model.count(model.prompt_of(body["messages"])), tokens * (body.get("n") or 1))
    common = {"id": identity, "created": created, "model": body["model"]}
    if body.get("stream"):
        return Answer.stream(list(_chat_events(body, common, message, finish, spent)))
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
        for index in range(body.get("n") or 1)
    ]
    payload = {**common, "object": "chat.completion", "choices": choices, "usage": spent}
    return Answer.of({**payload, "system_fingerprint": None})


def _message(body: dict[str, Any], reply: str | None) -> tuple[dict[str, Any], str, int]:
    """Return the assistant's message, why it ended, and its tokens."""
    last = body["messages"][-1]
    said = model.text_of(last.get("content"))
    if body.get("tools") and body.get("tool_choice") != "none" and last.get("role") != "tool":
        called = {
            "name": body["tools"][0]["function"]["name"],
            "arguments": model.arguments_for(said),
        }
        call = {"id": "call_1", "type": "function", "function": called}
        message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
        return message, "tool_calls", model.count(called["arguments"])
    text = f"You said: {said}" if reply is None else reply
    written = model.write(text, limit=limit(body), stop=stops(body))
    message = {"role": "assistant", "content": written.text, "refusal": None}
    return message, FINISH[written.ended], len(written.pieces)


def _chat_events(
    body: dict[str, Any],
    common: dict[str, Any],
    message: dict[str, Any],
    finish: str,
    spent: dict[str, int],
) -> Iterator[Event]:
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        payload = {**common, "object": "chat.completion.chunk", "choices": [choice]}
        return Event({**payload, "usage": None} if wants_usage else payload)

    for index in range(body.get("n") or 1):
        yield from (chunk(index, delta) for delta in _deltas(message))
        yield chunk(index, {}, finish)
    if wants_usage:
        # With include_usage the last chunk has the usage and no choices.
        payload = {**common, "object": "chat.completion.chunk", "choices": [], "usage": spent}
        yield Event(payload)
    yield DONE


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if calls := message.get("tool_calls"):
        (call,) = calls
        function = {"name": call["function"]["name"], "arguments": ""}
        opened = {"index": 0, "id": call["id"], "type": "function", "function": function}
        yield {"role": "assistant", "content": None, "tool_calls": [opened]}
        for piece in model.pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return
    yield {"role": "assistant", "content": ""}
    for piece in model.pieces(message["content"]):
        yield {"content": piece}


def completion(body: dict[str, Any], *, identity: str, created: int, reply: str | None) -> Answer:
    """Answer a text completion, or its stream."""
    require(body, model=str, prompt=(str, list))
    prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
    texts = [
        model.write(
            f"{prompt} ..." if reply is None else reply, limit=limit(body), stop=stops(body)
        )
        for prompt in prompts
    ]
    common = {
        "id": identity,
        "object": "text_completion",
        "created": created,
        "model": body["model"],
    }

    def choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    if body.get("stream"):
        events = [
            Event({**common, "choices": [choice(index, piece, None)]})
            for index, written in enumerate(texts)
            for piece in written.pieces
        ]
        ends = [
            Event({**common, "choices": [choice(index, "", FINISH[written.ended])]})
            for index, written in enumerate(texts)
        ]
        return Answer.stream([*events, *ends, DONE])
    spent = usage(
        sum(map(model.count, prompts)),
        sum(len(written.pieces) for written in texts),
    )
    choices = [
        choice(index, written.text, FINISH[written.ended]) for index, written in enumerate(texts)
    ]
    return Answer.of({**common, "choices": choices, "usage": spent})


def embeddings(body: dict[str, Any]) -> Answer:
    """Answer with one embedding for each input, as numbers or as base64 of 32-bit floats."""
    require(body, model=str, input=(str, list))
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    size = body.get("dimensions") or EMBEDDING_SIZE

    def embedding(text: str) -> list[float] | str:
        numbers = model.vector(text, size)
        if body.get("encoding_format") != "base64":
            return numbers
        return base64.b64encode(struct.pack(f"<{size}f", *numbers)).decode()

    data = [
        {"object": "embedding", "index": index, "embedding": embedding(str(text))}
        for index, text in enumerate(texts)
    ]
    tokens = sum(model.count(str(text)) for text in texts)
    spent = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer.of({"object": "list", "data": data, "model": body["model"], "usage": spent})


def model_object(identity: str, owner: str) -> dict[str, Any]:
    """Return the model object."""
    return {"id": identity, "object": "model", "created": 1677652288, "owned_by": owner}
