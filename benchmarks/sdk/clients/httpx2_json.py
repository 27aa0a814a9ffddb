"""``httpx2`` and ``json``: what people write who want no SDK."""

from __future__ import annotations

import json

import httpx2

from benchmarks.sdk import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADERS = {"Authorization": f"Bearer {asked.KEY}"}
PATH = "/v1/chat/completions"
TIMEOUT_SECONDS = 600


def make(url: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, headers=HEADERS, timeout=TIMEOUT_SECONDS)


def ask(client: httpx2.Client) -> str:
    return _text(client.post(PATH, json=asked.BODY))


def _text(answer: httpx2.Response) -> str:
    answer.raise_for_status()
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def stream(client: httpx2.Client, model: str) -> int:
    size = 0
    with client.stream("POST", PATH, json=_streamed(model)) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            size += _size(line)
    return size


def _streamed(model: str) -> dict[str, Any]:
    return {"model": model, "messages": asked.MESSAGES, "stream": True}


def _size(line: str) -> int:
    if not line.startswith("data: ") or line == "data: [DONE]":
        return 0
    content = json.loads(line[6:])["choices"][0]["delta"].get("content")
    return len(content) if content else 0


def embed(client: httpx2.Client) -> float:
    answer = client.post("/v1/embeddings", json={"model": asked.MODEL, "input": asked.TEXTS})
    answer.raise_for_status()
    items = answer.json()["data"]
    found: float = sum(len(item["embedding"]) + item["embedding"][0] for item in items)
    return found


embed_floats = embed


def close(client: httpx2.Client) -> None:
    client.close()


def make_async(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers=HEADERS, timeout=TIMEOUT_SECONDS)


async def ask_async(client: httpx2.AsyncClient) -> str:
    return _text(await client.post(PATH, json=asked.BODY))


async def stream_async(client: httpx2.AsyncClient, model: str) -> int:
    size = 0
    async with client.stream("POST", PATH, json=_streamed(model)) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            size += _size(line)
    return size


async def close_async(client: httpx2.AsyncClient) -> None:
    await client.aclose()
