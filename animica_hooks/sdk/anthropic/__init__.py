"""Anthropic's API: messages, and the older completions.

``client.messages`` and ``client.completions`` return typed objects, or streams of them;
``client.messages.stream(...)`` adds a stream up. The errors are attributes of this module, as in
the package ``anthropic``, and the same classes as in ``animica_hooks.errors``.
https://docs.anthropic.com/en/api
"""

from __future__ import annotations

from typing import ClassVar

import animica_hooks.sdk.errors as api_errors
from animica_hooks.sdk.anthropic import counting
from animica_hooks.sdk.anthropic.completions import (
    AI_PROMPT,
    HUMAN_PROMPT,
    AsyncCompletions,
    Completions,
)
from animica_hooks.sdk.anthropic.messages import AsyncMessages, Messages
from animica_hooks.sdk.async_client import AsyncClient as _AsyncClient
from animica_hooks.sdk.base import BaseClient
from animica_hooks.sdk.client import Client as _Client
from animica_hooks.sdk.errors import *  # noqa: F403 - what users catch, beside the client
from animica_hooks.sdk.timeout import Timeout

__all__ = ["AI_PROMPT", "HUMAN_PROMPT", "Anthropic", "AsyncAnthropic", "AsyncClient"]
__all__ += ["APIResponseValidationError", "Client", "Timeout"]
__all__ += api_errors.__all__

# https://docs.anthropic.com/en/api/versioning
VERSION = "2023-06-01"


class Provider(BaseClient):
    """What is Anthropic's own about its clients."""

    default_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    key_header = "x-api-key"
    key_prefix = ""
    own_headers = (("anthropic-version", VERSION),)

    HUMAN_PROMPT: ClassVar[str] = HUMAN_PROMPT
    AI_PROMPT: ClassVar[str] = AI_PROMPT


class Anthropic(Provider, _Client):
    """A client of Anthropic's API, for threads; ``base.BaseClient`` says what it takes."""

    @property
    def messages(self) -> Messages:
        """What the model says next in a conversation."""
        return Messages(self)

    @property
    def completions(self) -> Completions:
        """Texts that go on from a prompt, by the older API."""
        return Completions(self)

    def count_tokens(self, text: str, *, model: str = counting.MODEL) -> int:
        """Return how many tokens a text has, as the API counts them.

        Raises:
            APIError: the API did not say.
        """
        return counting.count(self.messages, text, model)


class AsyncAnthropic(Provider, _AsyncClient):
    """A client of Anthropic's API, for coroutines; ``base.BaseClient`` says what it takes."""

    @property
    def messages(self) -> AsyncMessages:
        """What the model says next in a conversation."""
        return AsyncMessages(self)

    @property
    def completions(self) -> AsyncCompletions:
        """Texts that go on from a prompt, by the older API."""
        return AsyncCompletions(self)

    async def count_tokens(self, text: str, *, model: str = counting.MODEL) -> int:
        """As ``Anthropic.count_tokens``."""
        return await counting.count_async(self.messages, text, model)


# Other names that the package anthropic has for them.
Client = Anthropic
AsyncClient = AsyncAnthropic
APIResponseValidationError = api_errors.APIResponseError
