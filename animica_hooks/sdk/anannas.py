"""Anannas: models of many providers behind OpenAI's API, named ``provider/model-name``.

A request whose model is named in another way is refused before it is sent, and an account without
credit is ``InsufficientCreditsError``. https://docs.anannas.ai
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import animica_hooks.sdk.errors as api_errors
from animica_hooks.errors import AnimicaHooksError, APIError, APIRequestError
from animica_hooks.sdk.async_client import AsyncClient
from animica_hooks.sdk.base import BaseClient, complete
from animica_hooks.sdk.client import Client
from animica_hooks.sdk.errors import *  # noqa: F403 - what users catch, beside the client
from animica_hooks.sdk.openai.chat import AsyncChat, Chat
from animica_hooks.sdk.openai.resources import AsyncModels, Models
from animica_hooks.sdk.timeout import NOT_GIVEN, NotGiven, Timeout

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import Answer
    from animica_hooks.sdk.endpoint import Endpoint
    from animica_hooks.sdk.flow import Policy, Request

__all__ = ["NOT_GIVEN", "Anannas", "AsyncAnannas", "AsyncOpenAI", "NotGiven", "OpenAI"]
__all__ += ["OpenAIError", "Timeout"]
__all__ += api_errors.__all__

T = TypeVar("T")
C = TypeVar("C")

_MODEL = re.compile(r"[^\s/]+(?:/[^\s/]+)+")


class Provider(BaseClient):
    """What is Anannas' own about its clients."""

    default_base_url = "https://api.anannas.ai/v1"
    key_variable = "ANANNAS_API_KEY"

    def _request(
        self, endpoint: Endpoint[Any, Any], params: dict[str, Any], *, stream: bool
    ) -> tuple[Request, Policy]:
        """Return the request of one call, unless Anannas can not know its model."""
        model = params.get("model")
        extra = params.get("extra_body")
        if isinstance(extra, Mapping):
            model = extra.get("model", model)
        named = isinstance(model, str) and _MODEL.fullmatch(model)
        if endpoint.method == "POST" and not named:
            raise APIRequestError(
                "model must be named provider/model-name, such as openai/gpt-5-mini.", param="model"
            )
        return super()._request(endpoint, params, stream=stream)


def failure_in(answer: Answer, key: str | None) -> APIError | None:
    """Return the error that is all there is in an answer of success; None where there is more.

    What fails while a model is at work Anannas tells with status 200, in the body. The error's
    class is that of its code or type: https://docs.anannas.ai/API/errors
    """
    # Only what can be one is decoded for this.
    if b'"error"' not in answer.content:
        return None
    from animica_hooks.sdk.codec import decode
    from animica_hooks.sdk.failures import from_event

    try:
        body = decode(answer.content)
    except ValueError:
        return None  # Whoever reads the answer says what it is.
    if not isinstance(body, dict) or not body.get("error") or body.get("choices"):
        return None
    error = from_event(answer.content, key=key)
    complete(error, answer)
    return error


class Anannas(Provider, Client):
    """A client of Anannas, for threads; ``base.BaseClient`` says what it takes."""

    @property
    def chat(self) -> Chat:
        """Chat, with the models of many providers."""
        return Chat(self)

    @property
    def models(self) -> Models:
        """The models that there are."""
        return Models(self)

    def _answer(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> Answer:
        answer = super()._answer(endpoint, params)
        if (error := failure_in(answer, self._settings.key)) is not None:
            raise error
        return answer


class AsyncAnannas(Provider, AsyncClient):
    """A client of Anannas, for coroutines; ``base.BaseClient`` says what it takes."""

    @property
    def chat(self) -> AsyncChat:
        """Chat, with the models of many providers."""
        return AsyncChat(self)

    @property
    def models(self) -> AsyncModels:
        """The models that there are."""
        return AsyncModels(self)

    async def _answer(self, endpoint: Endpoint[T, C], params: dict[str, Any]) -> Answer:
        answer = await super()._answer(endpoint, params)
        if (error := failure_in(answer, self._settings.key)) is not None:
            raise error
        return answer


# The names that the package openai has for them.
OpenAI = Anannas
AsyncOpenAI = AsyncAnannas
OpenAIError = AnimicaHooksError
