"""Answers that are no success, and ``error`` events of streams, as typed errors.

Imported when the first of them happens. Shapes read: OpenAI's ``{"error": {"message", "type",
"code", "param"}}``, Anthropic's ``{"type": "error", "error": {...}, "request_id"}``, and what
compatible servers make of these: strings, integer codes, ``detail``, HTML.
"""

from __future__ import annotations

import re
from typing import Any, TypedDict

from animica_hooks import errors
from animica_hooks.core.scrub import scrub
from animica_hooks.errors import APIError, APIStatusError
from animica_hooks.sdk.answer import Answer
from animica_hooks.sdk.codec import decode

MAX_MESSAGE = 500
MAX_DEPTH = 100
_STATUS = re.compile("[45][0-9]{2}")

_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.InsufficientCreditsError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.RequestTimeoutError,
    409: errors.ConflictError,
    413: errors.RequestTooLargeError,
    422: errors.UnprocessableEntityError,
    429: errors.RateLimitError,
    529: errors.OverloadedError,
}

# What the kinds of errors that a stream may bring would have had for a status.
# https://docs.anthropic.com/en/api/errors, https://platform.openai.com/docs/guides/error-codes,
# https://docs.anannas.ai/API/errors
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "insufficient_credits": 402,
    "insufficient_quota_error": 402,
    "content_filter_error": 403,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "api_error": 500,
    "internal_server_error": 500,
    "server_error": 500,
    "provider_error": 502,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Fields(TypedDict, total=False):
    """What an API says of an error, beside its message."""

    type: str | None
    code: str | None
    param: str | None


def class_of(status: int) -> type[APIStatusError]:
    """Return the class of the errors with a status."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return errors.InternalServerError if status >= 500 else APIStatusError


def from_answer(answer: Answer, *, key: str | None, retry_after: float | None) -> APIStatusError:
    """Return the error that an answer without success means.

    Args:
        answer: with its whole body.
        key: the API's key, which is taken out of whatever the API says.
        retry_after: seconds that the API asked to wait.
    """
    body = _body(answer.content, key)
    message, fields = _read(body)
    return class_of(answer.status)(
        scrub(message, MAX_MESSAGE) or f"the API answered with status {answer.status}",
        status=answer.status,
        request_id=answer.request_id or _own_id(body),
        body=body,
        headers=answer.headers.without_cookies(),
        retry_after=retry_after,
        **fields,
    )


def from_event(data: bytes, *, key: str | None) -> APIError:
    """Return the error that an event of a stream tells; of the class its status would have had."""
    body = _body(data, key)
    message, fields = _read(body)
    status = _status_of(fields)
    kind = APIError if status is None else class_of(status)
    text = scrub(message, MAX_MESSAGE) or "the API ended the stream with an error"
    return kind(text, status=status, body=body, request_id=_own_id(body), **fields)


def _body(content: bytes, key: str | None) -> Any:
    """Return the JSON's objects, or text, without the API's key."""
    try:
        return _without_key(decode(content), key, 0)
    except ValueError:
        return _without_key(content.decode("utf-8", "replace"), key, 0)


def _without_key(value: Any, key: str | None, depth: int) -> Any:
    """Take the key out of all text; after decoding, because JSON can write it in several ways.

    Raises:
        ValueError: the value is nested deeper than any error is, and than it could be pickled.
    """
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    match value:
        case str():
            return value.replace(key, "***") if key else value
        case dict():
            return {
                _without_key(name, key, depth): _without_key(inner, key, depth + 1)
                for name, inner in value.items()
            }
        case list():
            return [_without_key(inner, key, depth + 1) for inner in value]
        case _:
            return value


def _read(body: Any) -> tuple[str, Fields]:
    """Return the message, and type, code and param."""
    if not isinstance(body, dict):
        return (body[:MAX_MESSAGE] if isinstance(body, str) else ""), {}
    inner = body.get("error") or body
    if not isinstance(inner, dict):
        return str(inner), {}
    said = inner.get("message") or inner.get("detail") or inner.get("error")
    message = said if isinstance(said, str) else ""
    return message, {
        "type": _word(inner.get("type")),
        "code": _word(inner.get("code")),
        "param": _word(inner.get("param")),
    }


def _word(value: object) -> str | None:
    """Servers send codes as numbers, too."""
    return str(value) if isinstance(value, str | int | float) else None


def _own_id(body: Any) -> str | None:
    return _word(body.get("request_id")) if isinstance(body, dict) else None


def _status_of(fields: Fields) -> int | None:
    code = fields.get("code") or ""
    if _STATUS.fullmatch(code):
        return int(code)
    kinds = (fields.get("type"), fields.get("code"))
    return next((_STATUS_OF_TYPE[kind] for kind in kinds if kind in _STATUS_OF_TYPE), None)
