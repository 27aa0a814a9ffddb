"""``aiohttp`` and ``json``: async only, so that a start is one of an event loop, too."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from benchmarks.sdk import asked

PATH = "/v1/chat/completions"


def make_async(url: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        base_url=url,
        headers={"Authorization": f"Bearer {asked.KEY}"},
        timeout=aiohttp.ClientTimeout(total=600),
    )


async def ask_async(client: aiohttp.ClientSession) -> str:
    async with client.post(PATH, json=asked.BODY) as answer:
        answer.raise_for_status()
        text: str = json.loads(await answer.read())["choices"][0]["message"]["content"]
        return text


async def stream_async(client: aiohttp.ClientSession, model: str) -> int:
    size = 0
    body = {"model": model, "messages": asked.MESSAGES, "stream": True}
    async with client.post(PATH, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            content = json.loads(line[6:])["choices"][0]["delta"].get("content")
            if content:
                size += len(content)
    return size


async def close_async(client: aiohttp.ClientSession) -> None:
    await client.close()


class Running:
    """A session and its loop, for the start-up measures, which are written for sync clients."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.session = self.runner.run(self._made(url))

    async def _made(self, url: str) -> aiohttp.ClientSession:
        return make_async(url)


def make(url: str) -> Running:
    return Running(url)


def ask(client: Running) -> str:
    return client.runner.run(ask_async(client.session))


def close(client: Running) -> None:
    client.runner.run(client.session.close())
    client.runner.close()
