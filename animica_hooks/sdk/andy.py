"""The Andy API: a pool of many hosts that speaks as OpenAI's API does.

Chat needs no key, but without one the API answers ten requests a minute; embeddings, the models and
the pool's status need one. https://mindcraft.riqvip.dev/api/andy/v1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import animica_hooks.sdk.errors as api_errors
from animica_hooks.errors import AnimicaHooksError, APIRequestError
from animica_hooks.sdk.async_client import AsyncClient
from animica_hooks.sdk.base import BaseClient
from animica_hooks.sdk.client import Client
from animica_hooks.sdk.endpoint import Endpoint
from animica_hooks.sdk.errors import *  # noqa: F403 - what users catch, beside the client
from animica_hooks.sdk.openai import endpoints
from animica_hooks.sdk.openai.chat import AsyncChat, Chat
from animica_hooks.sdk.openai.resources import AsyncEmbeddings, AsyncModels, Embeddings, Models
from animica_hooks.sdk.resource import AsyncResource, Resource
from animica_hooks.sdk.timeout import NOT_GIVEN, NotGiven, Timeout

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import RawResponse
    from animica_hooks.sdk.flow import Policy, Request
    from animica_hooks.sdk.types.andy import PoolStatusReport

__all__ = ["NOT_GIVEN", "Andy", "AsyncAndy", "AsyncOpenAI", "NotGiven", "OpenAI", "OpenAIError"]
__all__ += ["Timeout"]
__all__ += api_errors.__all__

# Beside the OpenAI-compatible part of the API, not below it.
POOL_STATUS: Endpoint[PoolStatusReport, None] = Endpoint(
    "GET", "../pool_status", answer="andy.PoolStatusReport"
)


class Provider(BaseClient):
    """What is the Andy API's own about its clients."""

    default_base_url = "https://mindcraft.riqvip.dev/api/andy/v1"
    key_variable = "ANDY_API_KEY"
    key_required = False

    def _request(
        self, endpoint: Endpoint[Any, Any], params: dict[str, Any], *, stream: bool
    ) -> tuple[Request, Policy]:
        """Return the request of one call, unless it needs a key and has none."""
        # Whoever sends the header without api_key has a key, too.
        sent = [*self._settings.sent_headers, *(params.get("extra_headers") or {}).items()]
        key = {str(name).lower(): value for name, value in sent}.get("authorization")
        # A client of the user's own may add one to what it sends.
        brought = self._connections.plan.http_client is not None
        if key is None and not brought and endpoint.path != endpoints.CHAT.path:
            raise APIRequestError(
                f"only chat works without an API key: give api_key, or set {self.key_variable} "
                "in the environment."
            )
        return super()._request(endpoint, params, stream=stream)


class PoolStatus(Resource):
    """The pool's status, when called."""

    __slots__ = ()

    def __call__(self, **params: Any) -> PoolStatusReport:
        """Return the pool's hosts, their load, and the models.

        Raises:
            APIError: there is no answer, or no key.
        """
        return self._client._send(POOL_STATUS, params)

    def with_raw_response(self, **params: Any) -> RawResponse[PoolStatusReport]:
        """Return the same, with status and headers."""
        return self._client._raw(POOL_STATUS, params)


class AsyncPoolStatus(AsyncResource):
    """The pool's status, when called."""

    __slots__ = ()

    async def __call__(self, **params: Any) -> PoolStatusReport:
        """As ``PoolStatus``."""
        return await self._client._send(POOL_STATUS, params)

    async def with_raw_response(self, **params: Any) -> RawResponse[PoolStatusReport]:
        """As ``PoolStatus.with_raw_response``."""
        return await self._client._raw(POOL_STATUS, params)


class Andy(Provider, Client):
    """A client of the Andy API, for threads; ``base.BaseClient`` says what it takes."""

    @property
    def chat(self) -> Chat:
        """Chat, which needs no key."""
        return Chat(self)

    @property
    def embeddings(self) -> Embeddings:
        """Vectors of texts."""
        return Embeddings(self)

    @property
    def models(self) -> Models:
        """The models that the pool has."""
        return Models(self)

    @property
    def pool_status(self) -> PoolStatus:
        """The pool's hosts and their load: ``client.pool_status()``."""
        return PoolStatus(self)


class AsyncAndy(Provider, AsyncClient):
    """A client of the Andy API, for coroutines; ``base.BaseClient`` says what it takes."""

    @property
    def chat(self) -> AsyncChat:
        """Chat, which needs no key."""
        return AsyncChat(self)

    @property
    def embeddings(self) -> AsyncEmbeddings:
        """Vectors of texts."""
        return AsyncEmbeddings(self)

    @property
    def models(self) -> AsyncModels:
        """The models that the pool has."""
        return AsyncModels(self)

    @property
    def pool_status(self) -> AsyncPoolStatus:
        """The pool's hosts and their load: ``await client.pool_status()``."""
        return AsyncPoolStatus(self)


# The names that the package openai has for them.
OpenAI = Andy
AsyncOpenAI = AsyncAndy
OpenAIError = AnimicaHooksError
