"""The methods of Anthropic's API.

https://docs.anthropic.com/en/api/messages, .../messages-count-tokens, .../complete
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from animica_hooks.sdk.anthropic.readers import CompletionReader, MessageReader
from animica_hooks.sdk.endpoint import Endpoint

if TYPE_CHECKING:
    from animica_hooks.sdk.types.anthropic import (
        Completion,
        Message,
        MessageEvent,
        MessageTokensCount,
    )

MESSAGES: Endpoint[Message, MessageEvent] = Endpoint(
    "POST",
    "/v1/messages",
    answer="anthropic.Message",
    item="anthropic.MessageEvent",
    reader=MessageReader,
)
COUNT_TOKENS: Endpoint[MessageTokensCount, None] = Endpoint(
    "POST", "/v1/messages/count_tokens", answer="anthropic.MessageTokensCount"
)
COMPLETIONS: Endpoint[Completion, Completion] = Endpoint(
    "POST",
    "/v1/complete",
    answer="anthropic.Completion",
    item="anthropic.Completion",
    reader=CompletionReader,
)
