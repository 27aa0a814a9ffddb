"""``animica-ai``: flat methods, dicts, a new connection for each call; sync only."""

from __future__ import annotations

from animica_ai import Animica  # type: ignore[import-not-found, import-untyped, unused-ignore]

from benchmarks.sdk import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make(url: str) -> Any:
    return Animica(api_key=asked.KEY, base_url=f"{url}/v1")


def ask(client: Any) -> str:
    answer = client.chat_completions(
        model=asked.MODEL,
        messages=asked.MESSAGES,
        temperature=asked.TEMPERATURE,
        max_tokens=asked.MAX_TOKENS,
    )
    text: str = answer["choices"][0]["message"]["content"]
    return text


def stream(client: Any, model: str) -> int:
    size = 0
    for chunk in client.chat_completions(model=model, messages=asked.MESSAGES, stream=True):
        if content := chunk["choices"][0]["delta"].get("content"):
            size += len(content)
    return size


def embed(client: Any) -> float:
    answer = client.embeddings(model=asked.MODEL, input=asked.TEXTS)
    found: float = sum(len(item["embedding"]) + item["embedding"][0] for item in answer["data"])
    return found


embed_floats = embed


def close(client: Any) -> None:
    """Do nothing: it keeps no connections."""
