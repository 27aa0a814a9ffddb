"""The resources of OpenAI's API that are the same for chat, and for all its speakers.

Each method takes, beside what it names, whatever else the API does: unknown keyword arguments go
into the request's body as they are, None is left out, and ``options.CallOptions`` are options of
the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

from animica_hooks.sdk.openai import endpoints
from animica_hooks.sdk.resource import AsyncResource, Resource

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import RawResponse
    from animica_hooks.sdk.async_client import AsyncClient
    from animica_hooks.sdk.types.openai import EmbeddingList, ModelInfo, ModelList


class Embeddings(Resource):
    """Vectors of texts."""

    __slots__ = ()

    def create(self, *, model: str, input: object, **params: Any) -> EmbeddingList:  # noqa: A002
        """Return the vectors of a text or a list of texts, in the order of these.

        Floats are asked for unless ``encoding_format`` says otherwise: not every server has base64.

        Raises:
            APIError: there are none; see ``animica_hooks.errors``.
        """
        params.setdefault("encoding_format", "float")
        return self._client._send(endpoints.EMBEDDINGS, {"model": model, "input": input, **params})

    @property
    def with_raw_response(self) -> RawEmbeddings:
        """The same, with status and headers."""
        return RawEmbeddings(self._client)


class RawEmbeddings(Resource):
    """``Embeddings`` with status and headers."""

    __slots__ = ()

    def create(self, **params: Any) -> RawResponse[EmbeddingList]:
        """As ``Embeddings.create``."""
        params.setdefault("encoding_format", "float")
        return self._client._raw(endpoints.EMBEDDINGS, params)


class AsyncEmbeddings(AsyncResource):
    """Vectors of texts."""

    __slots__ = ()

    async def create(
        self,
        *,
        model: str,
        input: object,  # noqa: A002
        **params: Any,
    ) -> EmbeddingList:
        """As ``Embeddings.create``."""
        params.setdefault("encoding_format", "float")
        return await self._client._send(
            endpoints.EMBEDDINGS, {"model": model, "input": input, **params}
        )

    @property
    def with_raw_response(self) -> AsyncRawEmbeddings:
        """The same, with status and headers."""
        return AsyncRawEmbeddings(self._client)


class AsyncRawEmbeddings(AsyncResource):
    """``AsyncEmbeddings`` with status and headers."""

    __slots__ = ()

    async def create(self, **params: Any) -> RawResponse[EmbeddingList]:
        """As ``Embeddings.create``."""
        params.setdefault("encoding_format", "float")
        return await self._client._raw(endpoints.EMBEDDINGS, params)


class Models(Resource):
    """The models that the API has."""

    __slots__ = ()

    def list(self, **params: Any) -> ModelList:
        """Return the models.

        Raises:
            APIError: there is no answer; see ``animica_hooks.errors``.
        """
        return self._client._send(endpoints.MODELS, params)

    def retrieve(self, model: str, **params: Any) -> ModelInfo:
        """Return what the API says of one model.

        Raises:
            NotFoundError: there is none of that name.
            APIError: there is no answer; see ``animica_hooks.errors``.
        """
        return self._client._send(endpoints.model(model), params)

    @property
    def with_raw_response(self) -> RawModels:
        """The same, with status and headers."""
        return RawModels(self._client)


class RawModels(Resource):
    """``Models`` with status and headers."""

    __slots__ = ()

    def list(self, **params: Any) -> RawResponse[ModelList]:
        """As ``Models.list``."""
        return self._client._raw(endpoints.MODELS, params)

    def retrieve(self, model: str, **params: Any) -> RawResponse[ModelInfo]:
        """As ``Models.retrieve``."""
        return self._client._raw(endpoints.model(model), params)


class AsyncListing(AsyncResource):
    """The models, asked for when this is awaited, or with ``async for`` iterated over."""

    __slots__ = ("_params",)

    def __init__(self, client: AsyncClient, params: dict[str, Any]) -> None:
        super().__init__(client)
        self._params = params

    def __await__(self) -> Generator[Any, None, ModelList]:
        return self._client._send(endpoints.MODELS, dict(self._params)).__await__()

    async def __aiter__(self) -> AsyncIterator[ModelInfo]:
        for found in await self:
            yield found


class AsyncModels(AsyncResource):
    """The models that the API has."""

    __slots__ = ()

    def list(self, **params: Any) -> AsyncListing:
        """Return the models: ``await`` them, or ``async for`` over them."""
        return AsyncListing(self._client, params)

    async def retrieve(self, model: str, **params: Any) -> ModelInfo:
        """As ``Models.retrieve``."""
        return await self._client._send(endpoints.model(model), params)

    @property
    def with_raw_response(self) -> AsyncRawModels:
        """The same, with status and headers."""
        return AsyncRawModels(self._client)


class AsyncRawModels(AsyncResource):
    """``AsyncModels`` with status and headers."""

    __slots__ = ()

    async def list(self, **params: Any) -> RawResponse[ModelList]:
        """As ``Models.list``."""
        return await self._client._raw(endpoints.MODELS, params)

    async def retrieve(self, model: str, **params: Any) -> RawResponse[ModelInfo]:
        """As ``Models.retrieve``."""
        return await self._client._raw(endpoints.model(model), params)
