"""``client.completions``: the older API, which goes on from a prompt of two roles.

https://docs.anthropic.com/en/api/complete
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from animica_hooks.sdk.anthropic.endpoints import COMPLETIONS
from animica_hooks.sdk.resource import AsyncResource, Resource

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import RawResponse
    from animica_hooks.sdk.stream import AsyncStream, Stream
    from animica_hooks.sdk.types.anthropic import Completion
    from animica_hooks.sdk.types.anthropic_params import MetadataParam

# What the turns of a prompt begin with.
HUMAN_PROMPT: Final = "\n\nHuman:"
AI_PROMPT: Final = "\n\nAssistant:"


class Completions(Resource):
    """Texts that go on from a prompt, by the older API."""

    __slots__ = ()

    @overload
    def create(
        self,
        *,
        model: str,
        max_tokens_to_sample: int,
        prompt: str,
        stream: Literal[False] | None = None,
        stop_sequences: Iterable[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> Completion: ...

    @overload
    def create(
        self,
        *,
        model: str,
        max_tokens_to_sample: int,
        prompt: str,
        stream: Literal[True],
        stop_sequences: Iterable[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> Stream[Completion]: ...

    @overload
    def create(
        self,
        *,
        model: str,
        max_tokens_to_sample: int,
        prompt: str,
        stream: bool | None,
        **params: Any,
    ) -> Completion | Stream[Completion]: ...

    def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> Completion | Stream[Completion]:
        """Return the text, or with ``stream=True`` its increments as they come.

        Raises:
            APIError: there is none; see ``animica_hooks.errors``.
        """
        if stream:
            return self._client._stream(COMPLETIONS, params)
        return self._client._send(COMPLETIONS, params)

    @property
    def with_raw_response(self) -> RawCompletions:
        """The same, with status and headers."""
        return RawCompletions(self._client)


class RawCompletions(Resource):
    """``Completions`` with status and headers."""

    __slots__ = ()

    def create(self, **params: Any) -> RawResponse[Completion]:
        """As ``Completions.create``, without streams: these have status and headers anyway."""
        return self._client._raw(COMPLETIONS, params)


class AsyncCompletions(AsyncResource):
    """Texts that go on from a prompt, by the older API."""

    __slots__ = ()

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens_to_sample: int,
        prompt: str,
        stream: Literal[False] | None = None,
        stop_sequences: Iterable[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> Completion: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens_to_sample: int,
        prompt: str,
        stream: Literal[True],
        stop_sequences: Iterable[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        metadata: MetadataParam | None = None,
        **params: Any,
    ) -> AsyncStream[Completion]: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens_to_sample: int,
        prompt: str,
        stream: bool | None,
        **params: Any,
    ) -> Completion | AsyncStream[Completion]: ...

    async def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> Completion | AsyncStream[Completion]:
        """As ``Completions.create``."""
        if stream:
            return await self._client._stream(COMPLETIONS, params)
        return await self._client._send(COMPLETIONS, params)

    @property
    def with_raw_response(self) -> AsyncRawCompletions:
        """The same, with status and headers."""
        return AsyncRawCompletions(self._client)


class AsyncRawCompletions(AsyncResource):
    """``AsyncCompletions`` with status and headers."""

    __slots__ = ()

    async def create(self, **params: Any) -> RawResponse[Completion]:
        """As ``RawCompletions.create``."""
        return await self._client._raw(COMPLETIONS, params)
