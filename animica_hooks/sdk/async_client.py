"""The client for coroutines: a driver of the flow that awaits."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from animica_hooks.errors import APIError
from animica_hooks.sdk.answer import Answer, RawResponse
from animica_hooks.sdk.base import BaseClient, complete, is_stream, log_outcome, refuse_stream
from animica_hooks.sdk.endpoint import unusable
from animica_hooks.sdk.flow import Wait, exchange
from animica_hooks.sdk.transports.choice import AsyncConnections

if TYPE_CHECKING:
    from animica_hooks.sdk.endpoint import Endpoint
    from animica_hooks.sdk.flow import Policy, Request
    from animica_hooks.sdk.stream import AsyncStream
    from animica_hooks.sdk.transports import AsyncIncoming

T = TypeVar("T")
C = TypeVar("C")


class AsyncClient(BaseClient):
    """A client for coroutines: a driver that awaits. Its methods have the names of ``Client``'s."""

    _connections_class = AsyncConnections
    _connections: AsyncConnections

    async def _carry(self, request: Request, policy: Policy) -> tuple[Answer, AsyncIncoming]:
        """Carry one call through; the body of a stream is left to be read."""
        steps = exchange(request, policy)
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                from asyncio import sleep

                await sleep(step.seconds)
                step = steps.send(None)
                continue
            try:
                answer, incoming = await self._try(step)
            except APIError as error:
                step = steps.throw(error)
                continue
            try:
                step = steps.send(answer)
            except StopIteration:
                return answer, incoming

    async def _try(self, request: Request) -> tuple[Answer, AsyncIncoming]:
        began = time.monotonic()
        try:
            incoming = await self._connections.get().send(request)
            incoming.headers.hide(self._settings.key)
            answer = Answer(incoming.status, incoming.headers)
            self._seen.headers = incoming.headers
            if not request.stream or not 200 <= incoming.status < 300:
                await _read_async(answer, incoming)
        except APIError as error:
            log_outcome(request, error, began)
            raise
        log_outcome(request, answer, began)
        return answer, incoming

    async def _answer(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> Answer:
        request, policy = self._request(endpoint, params, stream=False)
        return (await self._carry(request, policy))[0]

    async def _send(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> T:
        """Make one call and return what it brings.

        Raises:
            APIError: it brings nothing.
        """
        return endpoint.read(await self._answer(endpoint, params))

    async def _raw(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> RawResponse[T]:
        """Make one call and return its answer as it came.

        Raises:
            APIError: there is none.
        """
        refuse_stream(params)
        return RawResponse(await self._answer(endpoint, params), endpoint.read)

    async def _stream(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> AsyncStream[C]:
        """Make one call and return its stream.

        Raises:
            APIError: there is none.
        """
        from animica_hooks.sdk.stream import AsyncStream

        request, policy = self._request(endpoint, {**params, "stream": True}, stream=True)
        deadline = request.deadline
        answer, incoming = await self._carry(request, policy)
        if not is_stream(answer):
            await _read_async(answer, incoming)
            raise unusable(answer, why="no stream")
        reader = endpoint.reader()
        reader.key = policy.key
        return AsyncStream(answer, incoming, reader, begun_by=request.deadline, deadline=deadline)

    async def _plain_stream(
        self, endpoint: Endpoint[T, C], params: dict[str, Any]
    ) -> AsyncGenerator[C]:
        """Make one call and return its stream as an asynchronous generator.

        Raises:
            APIError: there is none.
        """
        from animica_hooks.sdk.stream import plain_async

        return plain_async(await self._stream(endpoint, params))

    async def close(self) -> None:
        """Close the connections; what is called after that raises ``ClientClosed``."""
        await self._connections.aclose()

    async def aclose(self) -> None:
        """As ``close``, for ``contextlib.aclosing``."""
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _read_async(answer: Answer, incoming: AsyncIncoming) -> None:
    """As ``_read``."""
    try:
        answer.content = await incoming.read()
    except APIError as error:
        complete(error, answer)
        raise
