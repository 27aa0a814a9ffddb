"""Animica's API, as its package ``animica-ai`` has it, and as OpenAI's clients have it.

The flat methods (``client.chat_completions(...)``, ``completions``, ``embeddings``, ``models``,
``usage``) return plain dicts; ``client.chat.completions.create``, ``client.completions.create``,
``client.embeddings.create``, ``client.models.list`` and ``client.usage.list`` return typed objects.
https://pypi.org/project/animica-ai/
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Literal, overload

import animica_hooks.sdk.errors as api_errors
from animica_hooks.errors import AnimicaHooksError, APIError
from animica_hooks.sdk.async_client import AsyncClient
from animica_hooks.sdk.base import BaseClient
from animica_hooks.sdk.client import Client
from animica_hooks.sdk.endpoint import Endpoint
from animica_hooks.sdk.errors import *  # noqa: F403 - what users catch, beside the client
from animica_hooks.sdk.openai import endpoints, resources
from animica_hooks.sdk.openai.chat import AsyncChat, Chat, Messages, Stop, as_sent
from animica_hooks.sdk.resource import AsyncResource, Resource
from animica_hooks.sdk.timeout import NOT_GIVEN, NotGiven, Timeout

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import RawResponse
    from animica_hooks.sdk.stream import AsyncStream, Stream
    from animica_hooks.sdk.types import plain
    from animica_hooks.sdk.types.animica import UsageReport
    from animica_hooks.sdk.types.openai import Completion

__all__ = ["NOT_GIVEN", "Animica", "AnimicaError", "AsyncAnimica", "AsyncOpenAI", "NotGiven"]
__all__ += ["OpenAI", "OpenAIError", "Timeout"]
__all__ += api_errors.__all__

# The name that animica-ai has for it: one tree for all providers.
AnimicaError = APIError

USAGE: Endpoint[UsageReport, None] = Endpoint("GET", "/usage", answer="animica.UsageReport")
USAGE_PLAIN: Endpoint[plain.UsageReportDict, None] = Endpoint("GET", "/usage")


class Provider(BaseClient):
    """What is Animica's own about its clients."""

    default_base_url = "https://api.animica.org/v1"
    key_variable = "ANIMICA_API_KEY"


class Completions(Resource):
    """Texts that go on from a prompt: called, plain dicts; ``create``, typed objects."""

    __slots__ = ()

    @overload
    def __call__(
        self, model: str, prompt: object, *, stream: Literal[False] | None = None, **params: Any
    ) -> plain.CompletionDict: ...

    @overload
    def __call__(
        self, model: str, prompt: object, *, stream: Literal[True], **params: Any
    ) -> Generator[plain.CompletionDict]: ...

    def __call__(
        self, model: str, prompt: object, *, stream: bool | None = None, **params: Any
    ) -> plain.CompletionDict | Generator[plain.CompletionDict]:
        """Return the text as a dict, or with ``stream=True`` a generator of its chunks.

        Raises:
            AnimicaError: there is none.
        """
        asked = {"model": model, "prompt": prompt, **params}
        if stream:
            return self._client._plain_stream(endpoints.COMPLETIONS_PLAIN, asked)
        return self._client._send(endpoints.COMPLETIONS_PLAIN, asked)

    @overload
    def create(
        self, *, model: str, prompt: object, stream: Literal[False] | None = None, **params: Any
    ) -> Completion: ...

    @overload
    def create(
        self, *, model: str, prompt: object, stream: Literal[True], **params: Any
    ) -> Stream[Completion]: ...

    def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> Completion | Stream[Completion]:
        """Return the text, or with ``stream=True`` its chunks as they come.

        Raises:
            AnimicaError: there is none.
        """
        if stream:
            return self._client._stream(endpoints.COMPLETIONS, params)
        return self._client._send(endpoints.COMPLETIONS, params)

    @property
    def with_raw_response(self) -> RawCompletions:
        """The same, with status and headers."""
        return RawCompletions(self._client)


class RawCompletions(Resource):
    """``Completions`` with status and headers."""

    __slots__ = ()

    def create(self, **params: Any) -> RawResponse[Completion]:
        """As ``Completions.create``, without streams."""
        return self._client._raw(endpoints.COMPLETIONS, params)


class Embeddings(resources.Embeddings):
    """Vectors of texts: called, a plain dict; ``create``, a typed object."""

    __slots__ = ()

    def __call__(
        self,
        model: str,
        input: object,  # noqa: A002
        **params: Any,
    ) -> plain.EmbeddingListDict:
        """Return the vectors of a text or a list of texts, in the order of these.

        Raises:
            AnimicaError: there are none.
        """
        return self._client._send(
            endpoints.EMBEDDINGS_PLAIN, {"model": model, "input": input, **params}
        )


class Models(resources.Models):
    """The models that there are: called, a plain dict; ``list``, a typed object."""

    __slots__ = ()

    def __call__(self, **params: Any) -> plain.ModelListDict:
        """Return the models.

        Raises:
            AnimicaError: there is no answer.
        """
        return self._client._send(endpoints.MODELS_PLAIN, params)


class Usage(Resource):
    """What was used and spent: called, a plain dict; ``list``, a typed object."""

    __slots__ = ()

    def __call__(self, **params: Any) -> plain.UsageReportDict:
        """Return what was used and spent, in US dollars.

        Raises:
            AnimicaError: there is no answer.
        """
        return self._client._send(USAGE_PLAIN, params)

    def list(self, **params: Any) -> UsageReport:
        """Return what was used and spent, in US dollars.

        Raises:
            AnimicaError: there is no answer.
        """
        return self._client._send(USAGE, params)

    @property
    def with_raw_response(self) -> RawUsage:
        """The same, with status and headers."""
        return RawUsage(self._client)


class RawUsage(Resource):
    """``Usage`` with status and headers."""

    __slots__ = ()

    def list(self, **params: Any) -> RawResponse[UsageReport]:
        """As ``Usage.list``."""
        return self._client._raw(USAGE, params)


class Animica(Provider, Client):
    """A client of Animica's API, for threads; ``base.BaseClient`` says what it takes."""

    @property
    def chat(self) -> Chat:
        """Chat, with typed answers."""
        return Chat(self)

    @property
    def completions(self) -> Completions:
        """Texts that go on from a prompt."""
        return Completions(self)

    @property
    def embeddings(self) -> Embeddings:
        """Vectors of texts."""
        return Embeddings(self)

    @property
    def models(self) -> Models:
        """The models that there are."""
        return Models(self)

    @property
    def usage(self) -> Usage:
        """What was used and spent."""
        return Usage(self)

    @overload
    def chat_completions(
        self,
        model: str,
        messages: Messages,
        *,
        stream: Literal[False] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> plain.ChatCompletionDict: ...

    @overload
    def chat_completions(
        self,
        model: str,
        messages: Messages,
        *,
        stream: Literal[True],
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> Generator[plain.ChatCompletionChunkDict]: ...

    def chat_completions(
        self, model: str, messages: Messages, *, stream: bool | None = None, **params: Any
    ) -> plain.ChatCompletionDict | Generator[plain.ChatCompletionChunkDict]:
        """Return the answer as a dict, or with ``stream=True`` a generator of its chunks.

        Raises:
            AnimicaError: there is none.
        """
        asked = as_sent({"model": model, "messages": messages, **params})
        if stream:
            return self._plain_stream(endpoints.CHAT_PLAIN, asked)
        return self._send(endpoints.CHAT_PLAIN, asked)


class AsyncCompletions(AsyncResource):
    """Texts that go on from a prompt: called, plain dicts; ``create``, typed objects."""

    __slots__ = ()

    @overload
    async def __call__(
        self, model: str, prompt: object, *, stream: Literal[False] | None = None, **params: Any
    ) -> plain.CompletionDict: ...

    @overload
    async def __call__(
        self, model: str, prompt: object, *, stream: Literal[True], **params: Any
    ) -> AsyncGenerator[plain.CompletionDict]: ...

    async def __call__(
        self, model: str, prompt: object, *, stream: bool | None = None, **params: Any
    ) -> plain.CompletionDict | AsyncGenerator[plain.CompletionDict]:
        """As ``Completions.__call__``."""
        asked = {"model": model, "prompt": prompt, **params}
        if stream:
            return await self._client._plain_stream(endpoints.COMPLETIONS_PLAIN, asked)
        return await self._client._send(endpoints.COMPLETIONS_PLAIN, asked)

    @overload
    async def create(
        self, *, model: str, prompt: object, stream: Literal[False] | None = None, **params: Any
    ) -> Completion: ...

    @overload
    async def create(
        self, *, model: str, prompt: object, stream: Literal[True], **params: Any
    ) -> AsyncStream[Completion]: ...

    async def create(
        self, *, stream: bool | None = None, **params: Any
    ) -> Completion | AsyncStream[Completion]:
        """As ``Completions.create``."""
        if stream:
            return await self._client._stream(endpoints.COMPLETIONS, params)
        return await self._client._send(endpoints.COMPLETIONS, params)

    @property
    def with_raw_response(self) -> AsyncRawCompletions:
        """The same, with status and headers."""
        return AsyncRawCompletions(self._client)


class AsyncRawCompletions(AsyncResource):
    """``Completions`` with status and headers."""

    __slots__ = ()

    async def create(self, **params: Any) -> RawResponse[Completion]:
        """As ``Completions.create``, without streams."""
        return await self._client._raw(endpoints.COMPLETIONS, params)


class AsyncEmbeddings(resources.AsyncEmbeddings):
    """Vectors of texts: called, a plain dict; ``create``, a typed object."""

    __slots__ = ()

    async def __call__(
        self,
        model: str,
        input: object,  # noqa: A002
        **params: Any,
    ) -> plain.EmbeddingListDict:
        """As ``Embeddings.__call__``."""
        return await self._client._send(
            endpoints.EMBEDDINGS_PLAIN, {"model": model, "input": input, **params}
        )


class AsyncModels(resources.AsyncModels):
    """The models that there are: called, a plain dict; ``list``, a typed object."""

    __slots__ = ()

    async def __call__(self, **params: Any) -> plain.ModelListDict:
        """As ``Models.__call__``."""
        return await self._client._send(endpoints.MODELS_PLAIN, params)


class AsyncUsage(AsyncResource):
    """What was used and spent: called, a plain dict; ``list``, a typed object."""

    __slots__ = ()

    async def __call__(self, **params: Any) -> plain.UsageReportDict:
        """As ``Usage.__call__``."""
        return await self._client._send(USAGE_PLAIN, params)

    async def list(self, **params: Any) -> UsageReport:
        """As ``Usage.list``."""
        return await self._client._send(USAGE, params)

    @property
    def with_raw_response(self) -> AsyncRawUsage:
        """The same, with status and headers."""
        return AsyncRawUsage(self._client)


class AsyncRawUsage(AsyncResource):
    """``Usage`` with status and headers."""

    __slots__ = ()

    async def list(self, **params: Any) -> RawResponse[UsageReport]:
        """As ``Usage.list``."""
        return await self._client._raw(USAGE, params)


class AsyncAnimica(Provider, AsyncClient):
    """A client of Animica's API, for coroutines; ``base.BaseClient`` says what it takes."""

    @property
    def chat(self) -> AsyncChat:
        """Chat, with typed answers."""
        return AsyncChat(self)

    @property
    def completions(self) -> AsyncCompletions:
        """Texts that go on from a prompt."""
        return AsyncCompletions(self)

    @property
    def embeddings(self) -> AsyncEmbeddings:
        """Vectors of texts."""
        return AsyncEmbeddings(self)

    @property
    def models(self) -> AsyncModels:
        """The models that there are."""
        return AsyncModels(self)

    @property
    def usage(self) -> AsyncUsage:
        """What was used and spent."""
        return AsyncUsage(self)

    @overload
    async def chat_completions(
        self,
        model: str,
        messages: Messages,
        *,
        stream: Literal[False] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> plain.ChatCompletionDict: ...

    @overload
    async def chat_completions(
        self,
        model: str,
        messages: Messages,
        *,
        stream: Literal[True],
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: Stop = None,
        **params: Any,
    ) -> AsyncGenerator[plain.ChatCompletionChunkDict]: ...

    async def chat_completions(
        self, model: str, messages: Messages, *, stream: bool | None = None, **params: Any
    ) -> plain.ChatCompletionDict | AsyncGenerator[plain.ChatCompletionChunkDict]:
        """Return the answer as a dict, or with ``stream=True`` an asynchronous one of its chunks.

        Raises:
            AnimicaError: there is none.
        """
        asked = as_sent({"model": model, "messages": messages, **params})
        if stream:
            return await self._plain_stream(endpoints.CHAT_PLAIN, asked)
        return await self._send(endpoints.CHAT_PLAIN, asked)


# The names that the package openai has for them.
OpenAI = Animica
AsyncOpenAI = AsyncAnimica
OpenAIError = AnimicaHooksError
