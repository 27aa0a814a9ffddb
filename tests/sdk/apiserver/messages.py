"""Anthropic's shapes.

Messages and their stream: https://docs.anthropic.com/en/api/messages, .../messages-streaming;
text completions: https://docs.anthropic.com/en/api/complete, .../api/streaming; counting:
.../api/messages-count-tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apiserver import model
from apiserver.answer import Answer, Event, Refusal

HUMAN_PROMPT = "\n\nHuman:"
AI_PROMPT = "\n\nAssistant:"
STOP_REASONS = {"end": "end_turn", "stop": "stop_sequence", "length": "max_tokens"}


def require(body: dict[str, Any], **fields: type) -> None:
    """Refuse a body that lacks a field or has one of another type."""
    for name, kind in fields.items():
        if name not in body:
            raise Refusal(400, f"{name}: Field required")
        if not isinstance(body[name], kind) or body[name] in ("", []):
            raise Refusal(400, f"{name}: Input should be a valid {kind.__name__}")


def known_model(body: dict[str, Any]) -> None:
    """Refuse a model that is none of Anthropic's."""
    if not body["model"].startswith("claude-"):
        raise Refusal(404, f"model: {body['model']}")


def input_tokens(body: dict[str, Any]) -> int:
    """Return the tokens of the system prompt and of all messages."""
    return model.count(model.text_of(body.get("system"))) + model.count(
        model.prompt_of(body["messages"])
    )


def create(body: dict[str, Any], *, identity: str, reply: str | None) -> Answer:
    """Answer a message, or its stream."""
    require(body, model=str, max_tokens=int, messages=list)
    known_model(body)
    block, reason, stop, tokens = _block(body, reply)
    message = {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [block],
        "stop_reason": reason,
        "stop_sequence": stop,
        "usage": {"input_tokens": input_tokens(body), "output_tokens": tokens},
    }
    if not body.get("stream"):
        return Answer.of(message)
    return Answer.stream([Event(data, data["type"]) for data in _events(message)])


def _block(body: dict[str, Any], reply: str | None) -> tuple[dict[str, Any], str, str | None, int]:
    """Return the content block, the stop reason and sequence, and the tokens."""
    said = model.text_of(body["messages"][-1]["content"])
    if body.get("tools") and (body.get("tool_choice") or {}).get("type") != "none" and said:
        arguments = {"text": said}
        name = body["tools"][0]["name"]
        block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments}
        return block, "tool_use", None, model.count(model.arguments_for(said))
    text = f"You said: {said}" if reply is None else reply
    stop = body.get("stop_sequences") or []
    written = model.write(text, limit=body["max_tokens"], stop=stop)
    block = {"type": "text", "text": written.text}
    return block, STOP_REASONS[written.ended], written.stop, len(written.pieces)


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spent = message["usage"]
    (block,) = message["content"]
    opening: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
    begun = {"input_tokens": spent["input_tokens"], "output_tokens": 1}
    yield {"type": "message_start", "message": {**message, **opening, "usage": begun}}
    empty: dict[str, Any] = {"input": {}} if block["type"] == "tool_use" else {"text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": {**block, **empty}}
    # Pings come anywhere in a stream.
    yield {"type": "ping"}
    for delta in _deltas(block):
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {key: message[key] for key in ("stop_reason", "stop_sequence")}
    output = {"output_tokens": spent["output_tokens"]}
    yield {"type": "message_delta", "delta": ended, "usage": output}
    yield {"type": "message_stop"}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "tool_use":
        yield {"type": "input_json_delta", "partial_json": ""}
        for piece in model.pieces(model.arguments_for(block["input"]["text"])):
            yield {"type": "input_json_delta", "partial_json": piece}
    else:
        for piece in model.pieces(block["text"]):
            yield {"type": "text_delta", "text": piece}


def count_tokens(body: dict[str, Any]) -> Answer:
    """Answer how many tokens the messages have."""
    require(body, model=str, messages=list)
    known_model(body)
    return Answer.of({"input_tokens": input_tokens(body)})


def complete(body: dict[str, Any], *, identity: str, reply: str | None) -> Answer:
    """Answer a text completion of the legacy API, or its stream of increments."""
    require(body, model=str, max_tokens_to_sample=int, prompt=str)
    known_model(body)
    prompt: str = body["prompt"]
    if not prompt.startswith(HUMAN_PROMPT):
        raise Refusal(400, 'prompt must start with "\\n\\nHuman:" turn')
    if AI_PROMPT not in prompt:
        raise Refusal(400, 'prompt must end with "\\n\\nAssistant:" turn')
    said = prompt.removeprefix(HUMAN_PROMPT).partition(AI_PROMPT)[0].strip()
    text = f" You said: {said}" if reply is None else reply
    stop = [*(body.get("stop_sequences") or []), HUMAN_PROMPT]
    written = model.write(text, limit=body["max_tokens_to_sample"], stop=stop)
    # The Human turn that would follow is itself a stop sequence, so that ends are always one.
    reason = "max_tokens" if written.ended == "length" else "stop_sequence"
    common = {"type": "completion", "id": identity, "model": body["model"], "log_id": identity}
    if not body.get("stream"):
        whole = {"completion": written.text, "stop_reason": reason, "stop": written.stop}
        return Answer.of({**common, **whole})

    def increment(text: str, ended: str | None, stop: str | None) -> Event:
        data = {**common, "completion": text, "stop_reason": ended, "stop": stop}
        return Event(data, "completion")

    events = [increment(piece, None, None) for piece in written.pieces]
    events.insert(min(2, len(events)), Event({"type": "ping"}, "ping"))
    return Answer.stream([*events, increment("", reason, written.stop)])
