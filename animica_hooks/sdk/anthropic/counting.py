"""``client.count_tokens(text)``: how many tokens a text has by itself.

The API counts messages, and a message takes a few tokens of its own. How many these are tells a
message of one token; it is asked for once for each model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from animica_hooks.sdk.anthropic.messages import AsyncMessages, Messages

if TYPE_CHECKING:
    from animica_hooks.sdk.types.anthropic_params import MessageParam

# Whose tokens are counted where nobody names another.
MODEL = "claude-haiku-5-5"

_ONE_TOKEN = "a"  # noqa: S105 - no secret

# What a message takes, by base URL and model.
_around: dict[tuple[str, str], int] = {}


def _message(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def count(messages: Messages, text: str, model: str) -> int:
    """Return how many tokens a text has.

    Raises:
        APIError: the API did not say.
    """
    if not text:
        return 0
    key = (messages._client.base_url, model)
    if key not in _around:
        one = messages.count_tokens(model=model, messages=_message(_ONE_TOKEN))
        _around[key] = one.input_tokens - 1
    counted = messages.count_tokens(model=model, messages=_message(text))
    return counted.input_tokens - _around[key]


async def count_async(messages: AsyncMessages, text: str, model: str) -> int:
    """As ``count``."""
    if not text:
        return 0
    key = (messages._client.base_url, model)
    if key not in _around:
        one = await messages.count_tokens(model=model, messages=_message(_ONE_TOKEN))
        _around[key] = one.input_tokens - 1
    counted = await messages.count_tokens(model=model, messages=_message(text))
    return counted.input_tokens - _around[key]
