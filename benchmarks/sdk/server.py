"""The server that all clients talk to: a process of its own that answers from memory.

It does as little as a server can: finds a request's end, looks at its path and model, and writes
bytes that were put together beforehand. A burst is one write, so that clients have all of it to
work through; a live stream is one write per event, paced so that the slowest client keeps up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import ssl
import sys
from pathlib import Path
from typing import cast

import trustme
import uvloop

from benchmarks.sdk import answers
from benchmarks.sdk.asked import LIVE

END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
MODEL = re.compile(rb'"model": ?"(\w+)"')
STREAM = re.compile(rb'"stream": ?true')
BASE64 = re.compile(rb'"encoding_format": ?"base64"')
SECONDS_PER_EVENT = 0.002
NOT_FOUND = answers.whole(b'{"error":{"message":"no such path"}}', "404 Not Found")


class Answers:
    """What there is to answer with."""

    def __init__(self) -> None:
        self.whole = {b"/v1/chat/completions": answers.chat(), b"/v1/messages": answers.message()}
        self.streams = {
            b"/v1/chat/completions": answers.chat_streams(),
            b"/v1/messages": answers.message_streams(),
        }
        self.bursts = {
            path: {model: answers.stream_head() + b"".join(parts) for model, parts in each.items()}
            for path, each in self.streams.items()
        }
        self.floats = answers.embeddings(as_base64=False)
        self.base64 = answers.embeddings(as_base64=True)


class Connection(asyncio.Protocol):
    """Answers one request after another."""

    transport: asyncio.Transport

    def __init__(self, known: Answers) -> None:
        self.known = known
        self.received = b""
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are of no class that asyncio has.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        """Stop what is being streamed."""
        self.is_open = False

    def data_received(self, data: bytes) -> None:
        """Answer once a request is complete."""
        self.received += data
        head, end, body = self.received.partition(END_OF_HEAD)
        if not end:
            return
        found = LENGTH.search(head)
        if found is None or len(body) >= int(found[1]):
            self.received = b""
            self.answer(head.split(b" ", 2)[1], body)

    def answer(self, path: bytes, body: bytes) -> None:
        """Write the answer, or begin to."""
        if path == b"/v1/embeddings":
            is_base64 = BASE64.search(body) is not None
            self.transport.write(self.known.base64 if is_base64 else self.known.floats)
        elif path not in self.known.whole:
            self.transport.write(NOT_FOUND)
        elif STREAM.search(body):
            self.stream(path, body)
        else:
            self.transport.write(self.known.whole[path])

    def stream(self, path: bytes, body: bytes) -> None:
        """Write a stream: all at once, or at the pace of a live one."""
        found = MODEL.search(body)
        model = found[1].decode() if found else ""
        if model == LIVE:
            self.transport.write(answers.stream_head())
            self.pace(self.known.streams[path][LIVE], 0)
        else:
            self.transport.write(self.known.bursts[path].get(model, NOT_FOUND))

    def pace(self, pieces: list[bytes], position: int) -> None:
        """Write the next event, and the one after it later."""
        if not self.is_open:
            return
        self.transport.write(pieces[position])
        if position + 1 < len(pieces):
            loop = asyncio.get_running_loop()
            loop.call_later(SECONDS_PER_EVENT, self.pace, pieces, position + 1)


async def serve(authority: Path) -> None:
    """Listen, plain and with TLS, and say where, until standard input ends."""
    known = Answers()
    loop = asyncio.get_running_loop()
    issuer = trustme.CA()
    issuer.cert_pem.write_to_path(str(authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    plain = await loop.create_server(lambda: Connection(known), "127.0.0.1", 0)
    secure = await loop.create_server(lambda: Connection(known), "127.0.0.1", 0, ssl=context)
    ports = [each.sockets[0].getsockname()[1] for each in (plain, secure)]
    print(json.dumps(ports), flush=True)
    # The parent holds the other end: it ends when the parent does, however that comes about.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk.server", description=__doc__)
    parser.add_argument("authority", type=Path, help="where to write the certificate to trust")
    uvloop.run(serve(parser.parse_args().authority))
