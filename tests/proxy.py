"""A TCP proxy between a program and its database, which can swallow, delay and cut."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Self


class Proxy:
    """Passes bytes on to a port of this machine, as long as it is told nothing else.

    Attributes:
        swallows: bytes vanish in both directions, and the connections stay open.
        swallow_answers: only what the database says vanishes.
        delay: seconds that each piece takes, in each direction.
        passes: is asked for each piece that a client sends.
        accepted: how many connections there were.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.swallows = False
        self.swallow_answers = False
        self.delay = 0.0
        self.passes: Callable[[bytes], bool] = lambda data: True
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        self.swallow_answers = False
        for writer in self._writers:
            writer.transport.abort()

    def forget(self) -> None:
        """Swallow for ever what comes over the connections there are; new ones are served."""
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            up = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(up[1])
        for source, to, request in ((reader, up[1], True), (up[0], writer, False)):
            task = asyncio.create_task(self._pass_on(source, to, request))
            self._tasks.add(task)

    async def _pass_on(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, request: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if request and not self.passes(data):
                    continue
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not (self.swallows or (self.swallow_answers and not request)):
                    to.write(data)
                    await to.drain()
        to.transport.abort()
