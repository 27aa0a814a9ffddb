"""Anthropic's API: messages, and the older completions.

``client.messages`` and ``client.completions`` return typed objects, or streams of them;
``client.messages.stream(...)`` adds a stream up. The errors are attributes of this module, as in
the package ``anthropic``, and the same classes as in ``animica_hooks.errors``.
https://docs.anthropic.com/en/api
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import animica_hooks.sdk.errors as api_errors
from animica_hooks.errors import AnimicaHooksError
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
from animica_hooks.sdk.timeout import NOT_GIVEN, UNSET, NotGiven, Timeout

if TYPE_CHECKING:
    from typing import Unpack

    from animica_hooks.sdk.options import ClientOptions
    from animica_hooks.sdk.timeout import AnyTimeout, Unset

__all__ = ["AI_PROMPT", "HUMAN_PROMPT", "Anthropic", "AsyncAnthropic", "AsyncClient"]
__all__ += ["NOT_GIVEN", "AnthropicError", "Client", "NotGiven", "Timeout"]
__all__ += api_errors.__all__

# https://docs.anthropic.com/en/api/versioning
VERSION = "2023-06-01"

TOKEN_VARIABLE = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - where the token is


class Provider(BaseClient):
    """What is Anthropic's own about its clients.

    Args:
        api_key: from the environment where neither this nor ``auth_token`` is given.
        base_url: where the API is.
        timeout: seconds of each step, or a ``Timeout``; ten minutes.
        auth_token: a bearer token, for who has no key; from ``ANTHROPIC_AUTH_TOKEN`` where there is
            no key there either.
        options: as ``base.BaseClient`` has them.

    Raises:
        ConfigurationError: something is missing, or makes no sense; the message says what.
    """

    default_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    key_header = "x-api-key"
    key_prefix = ""
    own_headers = (("anthropic-version", VERSION),)

    HUMAN_PROMPT: ClassVar[str] = HUMAN_PROMPT
    AI_PROMPT: ClassVar[str] = AI_PROMPT

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: AnyTimeout | Unset = UNSET,
        *,
        auth_token: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if auth_token is None and self.key_variable not in os.environ:
            auth_token = os.environ.get(TOKEN_VARIABLE)
        self._bears_token = api_key is None and auth_token is not None
        secret = auth_token if self._bears_token else api_key
        super().__init__(secret, base_url, timeout, **options)

    def _authorisation(self, key: str) -> tuple[str, str]:
        if self._bears_token:
            return "Authorization", f"Bearer {key}"
        return super()._authorisation(key)


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
AnthropicError = AnimicaHooksError
