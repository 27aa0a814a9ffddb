"""The bare transport of ``animica_hooks.sdk``: one request, made beforehand, and bytes back.

What ``ours`` uses more than this is the SDK's own; less is not to be had with this transport. It
looks for what it was sent only to show that it has read it.
"""

from __future__ import annotations

from animica_hooks.sdk import Animica, AsyncAnimica
from benchmarks.sdk import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from animica_hooks.sdk.flow import Request

PATH = "/chat/completions"
NEEDLE = asked.ANSWER.encode()
TOKEN = f'"{asked.TOKEN}"'.encode()


def _request(client: Animica | AsyncAnimica, model: str) -> Request:
    body = {**asked.BODY, "model": model}
    streams = model != asked.MODEL
    if streams:
        body["stream"] = True
    return client._settings.request("POST", PATH, body, stream=streams)[0]


class Bare:
    """A client's transport, and what it sends."""

    def __init__(self, url: str) -> None:
        self.client = Animica(api_key=asked.KEY, base_url=f"{url}/v1")
        self.request = _request(self.client, asked.MODEL)
        self.send = self.client._connections.get().send


def make(url: str) -> Bare:
    return Bare(url)


def ask(client: Bare) -> str:
    return asked.ANSWER if NEEDLE in client.send(client.request).read() else ""


def stream(client: Bare, model: str) -> int:
    incoming = client.send(_request(client.client, model))
    pieces = []
    while data := incoming.read_some(None):
        pieces.append(data)
    incoming.close()
    return b"".join(pieces).count(TOKEN) * len(asked.TOKEN)


def close(client: Bare) -> None:
    client.client.close()


class AsyncBare:
    """The same for coroutines; the transport belongs to the loop that asks for it."""

    def __init__(self, url: str) -> None:
        self.client = AsyncAnimica(api_key=asked.KEY, base_url=f"{url}/v1")
        self.request = _request(self.client, asked.MODEL)


def make_async(url: str) -> AsyncBare:
    return AsyncBare(url)


async def ask_async(client: AsyncBare) -> str:
    incoming = await client.client._connections.get().send(client.request)
    return asked.ANSWER if NEEDLE in await incoming.read() else ""


async def stream_async(client: AsyncBare, model: str) -> int:
    request = _request(client.client, model)
    incoming = await client.client._connections.get().send(request)
    pieces = []
    while data := await incoming.read_some(None):
        pieces.append(data)
    await incoming.aclose()
    return b"".join(pieces).count(TOKEN) * len(asked.TOKEN)


async def close_async(client: AsyncBare) -> None:
    await client.client.close()
