"""The errors of ``animica_hooks.errors`` that calls of an API raise: each provider has them all.

``from animica_hooks.sdk import anthropic`` and then ``anthropic.RateLimitError``, as with the
providers' own packages; the class is the same for all of them.
"""

from __future__ import annotations

from animica_hooks.errors import (
    APIConnectionError,
    APIError,
    APIRequestError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosed,
    ConflictError,
    InsufficientCreditsError,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    RequestTooLargeError,
    StreamInterrupted,
    UnprocessableEntityError,
)

# The name that the official clients have for it.
APIResponseValidationError = APIResponseError

# A provider's module adds this list to its own. For pyright it must import it by this module's full
# name: ``from animica_hooks.sdk import errors`` would give it the package's list.
__all__ = [
    "APIConnectionError",
    "APIError",
    "APIRequestError",
    "APIResponseError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ClientClosed",
    "ConflictError",
    "InsufficientCreditsError",
    "InternalServerError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "StreamInterrupted",
    "UnprocessableEntityError",
]
