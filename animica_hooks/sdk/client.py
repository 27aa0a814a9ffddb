"""The client for threads: a driver of the flow that sends and waits by blocking."""

from __future__ import annotations

import time
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from animica_hooks.errors import APIError
from animica_hooks.sdk.answer import Answer, RawResponse
from animica_hooks.sdk.base import BaseClient, complete, is_stream, log_outcome, refuse_stream
from animica_hooks.sdk.endpoint import unusable
from animica_hooks.sdk.flow import Wait, exchange
from animica_hooks.sdk.transports.choice import Connections

if TYPE_CHECKING:
    from animica_hooks.sdk.endpoint import Endpoint
    from animica_hooks.sdk.flow import Policy, Request
    from animica_hooks.sdk.stream import Stream
    from animica_hooks.sdk.transports import Incoming

T = TypeVar("T")
C = TypeVar("C")


class Client(BaseClient):
    """A client for threads: a driver that sends and waits by blocking."""

    _connections_class = Connections
    _connections: Connections

    def _carry(self, request: Request, policy: Policy) -> tuple[Answer, Incoming]:
        """Carry one call through; the body of a stream is left to be read."""
        steps = exchange(request, policy)
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                step = steps.send(None)
                continue
            try:
                answer, incoming = self._try(step)
            except APIError as error:
                step = steps.throw(error)
                continue
            try:
                step = steps.send(answer)
            except StopIteration:
                return answer, incoming

    def _try(self, request: Request) -> tuple[Answer, Incoming]:
        began = time.monotonic()
        try:
            incoming = self._connections.get().send(request)
            incoming.headers.hide(self._settings.key)
            answer = Answer(incoming.status, incoming.headers)
            self._seen.headers = incoming.headers
            if not request.stream or not 200 <= incoming.status < 300:
                _read(answer, incoming)
        except APIError as error:
            log_outcome(request, error, began)
            raise
        log_outcome(request, answer, began)
        return answer, incoming

    def _answer(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> Answer:
        request, policy = self._request(endpoint, params, stream=False)
        return self._carry(request, policy)[0]

    def _send(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> T:
        """Make one call and return what it brings.

        Raises:
            APIError: it brings nothing.
        """
        return endpoint.read(self._answer(endpoint, params))

    def _raw(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> RawResponse[T]:
        """Make one call and return its answer as it came.

        Raises:
            APIError: there is none.
        """
        refuse_stream(params)
        return RawResponse(self._answer(endpoint, params), endpoint.read)

    def _stream(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> Stream[C]:
        """Make one call and return its stream.

        Raises:
            APIError: there is none.
        """
        from animica_hooks.sdk.stream import Stream

        request, policy = self._request(endpoint, {**params, "stream": True}, stream=True)
        deadline = request.deadline
        answer, incoming = self._carry(request, policy)
        if not is_stream(answer):
            _read(answer, incoming)
            raise unusable(answer, why="no stream")
        reader = endpoint.reader()
        reader.key = policy.key
        return Stream(answer, incoming, reader, begun_by=request.deadline, deadline=deadline)

    def _plain_stream(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> Generator[C]:
        """Make one call and return its stream as a generator.

        Raises:
            APIError: there is none.
        """
        from animica_hooks.sdk.stream import plain

        return plain(self._stream(endpoint, params))

    def close(self) -> None:
        """Close the connections; what is called after that raises ``ClientClosed``."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _read(answer: Answer, incoming: Incoming) -> None:
    """Read the body.

    Raises:
        APIError: it broke off; the error has what is known of the answer.
    """
    try:
        answer.content = incoming.read()
    except APIError as error:
        complete(error, answer)
        raise
