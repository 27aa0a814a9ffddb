"""``pyreqwest`` and ``msgspec``: the thinnest typed client that one can put together from parts."""

from __future__ import annotations

import msgspec
from pyreqwest.client import SyncClientBuilder

from benchmarks.sdk import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreqwest.client import Client, SyncClient

PATH = "/v1/chat/completions"


class Message(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    message: Message | None = None
    delta: Message | None = None
    index: int = 0
    finish_reason: str | None = None


class Completion(msgspec.Struct):
    id: str
    model: str
    created: int
    choices: list[Choice]


class Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class EmbeddingList(msgspec.Struct):
    data: list[Embedding]


encode = msgspec.json.encode
decode = msgspec.json.Decoder(Completion).decode
decode_embeddings = msgspec.json.Decoder(EmbeddingList).decode

HEADERS = {"Authorization": f"Bearer {asked.KEY}", "Content-Type": "application/json"}


class Events:
    """Cuts the bytes of a stream into chunks and counts their text."""

    def __init__(self) -> None:
        self.rest = b""

    def size(self, data: bytes) -> int:
        *events, self.rest = (self.rest + data).split(b"\n\n")
        size = 0
        for event in events:
            if event != b"data: [DONE]":
                delta = decode(event[6:]).choices[0].delta
                if delta is not None and delta.content:
                    size += len(delta.content)
        return size


def _streamed(model: str) -> bytes:
    return encode({"model": model, "messages": asked.MESSAGES, "stream": True})


def make(url: str) -> SyncClient:
    builder = SyncClientBuilder().base_url(url).default_headers(HEADERS)
    if url.startswith("https:"):
        builder = builder.add_root_certificate_pem(authority())
    return builder.error_for_status().build()


def authority() -> bytes:
    import os
    from pathlib import Path

    # It has its authorities built in, and looks at no variable.
    return Path(os.environ["SSL_CERT_FILE"]).read_bytes()


def ask(client: SyncClient) -> str | None:
    answer = client.post(PATH).body_bytes(encode(asked.BODY)).build().send()
    message = decode(answer.bytes()).choices[0].message
    return message.content if message else None


def stream(client: SyncClient, model: str) -> int:
    size = 0
    events = Events()
    with client.post(PATH).body_bytes(_streamed(model)).build_streamed() as answer:
        while data := answer.body_reader.read_chunk():
            size += events.size(bytes(data))
    return size


def embed(client: SyncClient) -> float:
    body = encode({"model": asked.MODEL, "input": asked.TEXTS})
    answer = client.post("/v1/embeddings").body_bytes(body).build().send()
    items = decode_embeddings(answer.bytes()).data
    return sum(len(item.embedding) + item.embedding[0] for item in items)


embed_floats = embed


def close(client: SyncClient) -> None:
    client.close()


def make_async(url: str) -> Client:
    from pyreqwest.client import ClientBuilder

    return ClientBuilder().base_url(url).default_headers(HEADERS).error_for_status().build()


async def ask_async(client: Client) -> str | None:
    answer = await client.post(PATH).body_bytes(encode(asked.BODY)).build().send()
    message = decode(await answer.bytes()).choices[0].message
    return message.content if message else None


async def stream_async(client: Client, model: str) -> int:
    size = 0
    events = Events()
    async with client.post(PATH).body_bytes(_streamed(model)).build_streamed() as answer:
        while data := await answer.body_reader.read_chunk():
            size += events.size(bytes(data))
    return size


async def close_async(client: Client) -> None:
    await client.close()
