"""One request and the ways to answer it: what steps are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from apiserver.answer import Answer, Event, Refusal

if TYPE_CHECKING:
    from apiserver.providers import Provider
    from apiserver.running import Connection
    from apiserver.space import Recorded, Space
    from apiserver.steps import Hold

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[str, str]]


class Exchange:
    """A request, its space and provider, and the connection that it came by."""

    def __init__(
        self,
        *,
        request: Recorded,
        space: Space,
        provider: Provider,
        connection: Connection,
        receive: Receive,
        send: Send,
    ) -> None:
        self.request = request
        self._space = space
        self._provider = provider
        self._connection = connection
        self._receive = receive
        self._send = send
        self._gone = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    # What is answered.

    def answer(self) -> Answer:
        """Carry the request out and return the provider's answer."""
        return self._space.answer(self._provider, self.request)

    def refused(self, refusal: Refusal) -> Answer:
        """Return the provider's words for an error, without carrying the request out."""
        request_id = self._space.identity("req_")
        headers = self._space.headers(self._provider, self.request, request_id)
        answer = self._provider.refuse(refusal, request_id).with_headers(*headers)
        return answer.with_headers(*refusal.headers)

    def error_event(self, refusal: Refusal) -> Event:
        """Return the provider's event for an error in mid-stream."""
        return self._provider.error_event(refusal, self._space.identity("req_"))

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that every answer has."""
        request_id = self._space.identity("req_")
        return list(self._space.headers(self._provider, self.request, request_id))

    # How it is delivered.

    async def deliver(self, answer: Answer) -> None:
        """Send an answer whole."""
        await self.start(answer.status, self.sized(answer))
        for part in answer.parts:
            await self.write(part)
        await self.finish()

    async def deliver_some(self, answer: Answer, parts: int) -> None:
        """Begin a chunked answer, and send some of its parts."""
        await self.start(answer.status, answer.headers)
        for part in answer.parts[:parts]:
            await self.write(part)

    def sized(self, answer: Answer) -> tuple[tuple[str, str], ...]:
        """Return the headers of an answer, with its length unless it is a stream."""
        if answer.events is not None:
            return answer.headers
        return answer.with_headers(("content-length", str(len(answer.body)))).headers

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head."""
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, part: bytes) -> None:
        """Send a part of the body as a chunk of its own."""
        if part:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def finish(self) -> None:
        """End the body in good order."""
        if not self._gone.is_set():
            self.request.done = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def raw(self, data: bytes) -> None:
        """Send bytes past HTTP's framing."""
        self._connection.write(data)

    async def hang_up(self) -> None:
        """Close the connection once all that was sent is out."""
        self._connection.close()
        await self._gone.wait()

    async def reset(self) -> None:
        """Reset the connection."""
        self._connection.reset()
        await self._gone.wait()

    # What it waits for.

    async def read_body(self) -> bool:
        """Read the request's body, and from then on watch whether the client leaves.

        Returns whether the body came whole.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone.set()
                return False
            self.request.body += message.get("body", b"")
            more = message.get("more_body", False)
        self._watch = asyncio.create_task(self._watch_client())
        return True

    async def pause(self, seconds: float) -> None:
        """Wait for a time, or until the client leaves."""
        try:
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            pass

    async def wait_at(self, hold: Hold, *, reading: bool = True) -> None:
        """Wait until a hold is released, or until the client leaves.

        Without reading, the departure of a client shows only at the release.
        """
        loop = asyncio.get_running_loop()
        released = asyncio.Event()
        hold.on_release(lambda: loop.call_soon_threadsafe(released.set))
        hold.reached.set()
        waits = [loop.create_task(released.wait())]
        if reading:
            waits.append(loop.create_task(self._gone.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def close(self) -> None:
        """End the watch, and note how the request ended."""
        if self._watch is not None:
            self._watch.cancel()
        if not self.request.done:
            self.request.broken_off = True
        self._space.notify()

    async def _watch_client(self) -> None:
        # After a complete answer uvicorn says so too, to nobody's harm.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
