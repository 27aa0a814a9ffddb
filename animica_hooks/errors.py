"""Every error this package raises, in one tree.

AnimicaHooksError
├── ConfigurationError            wrong set-up; raised at construction or start, says what to change
├── DeliveryRejected              a delivery that is answered with an error
│   ├── SignatureError            not signed by one of the endpoint's secrets, or not now
│   ├── PayloadTooLarge           the body is over the limit
│   └── MalformedEvent            authentic, but not usable as an event (goes to the quarantine)
├── StoreError                    the database did not do what was asked
│   ├── StoreRefused              it does not take what one row holds
│   └── StoreUnavailable          down, slow, full or overloaded; trying again may help
├── HandlerError                  a handler could not be run, or was stopped
│   ├── HandlerTimeout            it ran longer than its timeout
│   ├── EventMisfit               ``event.data`` does not fit the handler's type
│   ├── HandlerCrashed            the process died while only this job was running
│   ├── LeaseLost                 another worker has the job by now; nothing was committed
│   └── CommitUnknown             the connection was lost in a handler's commit
├── HandlerInUse                  a handler that is to be removed, and that a running process has
├── ReplayRefused                 a replay that would do more, or less, than it seems
└── APIError                      a call of an API that brought no result
    ├── APIRequestError           it can not be sent as it is; nothing was sent
    │   └── ClientClosed          its client was closed before
    ├── APIConnectionError        the API could not be reached, or did not answer
    │   └── APITimeoutError       it took longer than a timeout or the deadline
    ├── APIResponseError          the answer is not usable: incomplete, or not what the API speaks
    │   └── StreamInterrupted     a stream broke off; carries the text so far
    └── APIStatusError            the API answered with a status that is no success
        ├── BadRequestError             400
        ├── AuthenticationError         401
        ├── InsufficientCreditsError    402
        ├── PermissionDeniedError       403
        ├── NotFoundError               404
        ├── RequestTimeoutError         408
        ├── ConflictError               409
        ├── RequestTooLargeError        413
        ├── UnprocessableEntityError    422
        ├── RateLimitError              429
        └── InternalServerError         500 and above
            └── OverloadedError         529

No message carries a secret or a payload. What a handler raises to steer its job
(``RetryLater``, ``Discard``) is an outcome and lives in ``core.outcome``.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Names for checkers only: errors stand below every other module.
    from collections.abc import Mapping


class AnimicaHooksError(Exception):
    """Root of every error raised by this package."""


class ConfigurationError(AnimicaHooksError):
    """The set-up is wrong; the message says what to change."""


class DeliveryRejected(AnimicaHooksError):
    """A delivery that can not be accepted."""


class SignatureReason(enum.StrEnum):
    """Why a signature was refused: for logs and metrics, never for the sender."""

    MISSING = "missing"
    MALFORMED = "malformed"
    TIMESTAMP = "timestamp"
    MISMATCH = "mismatch"


_SIGNATURE_MESSAGES = {
    SignatureReason.MISSING: "there is no signature header",
    SignatureReason.MALFORMED: "the signature header is not of the form t=<unix seconds>,v1=<hex>",
    SignatureReason.TIMESTAMP: "the signature's timestamp is outside the tolerance",
    SignatureReason.MISMATCH: "the signature was not made with one of the signing secrets",
}


class SignatureError(DeliveryRejected):
    """The signature was refused.

    Attributes:
        reason: which of the checks failed.
    """

    def __init__(self, reason: SignatureReason) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return _SIGNATURE_MESSAGES[self.reason]


class PayloadTooLarge(DeliveryRejected):
    """The body is larger than the endpoint takes."""


class MalformedEvent(DeliveryRejected):
    """An authentic delivery is not usable as an event; the message says why, in a few words."""


class StoreError(AnimicaHooksError):
    """The database did not do what was asked; nothing was half done."""


class StoreRefused(StoreError):
    """The database does not take what a row holds, until something is changed there.

    Nothing of its transaction was done.
    """


class StoreUnavailable(StoreError):
    """The database is down, slow, full or overloaded; try again later."""


class HandlerError(AnimicaHooksError):
    """A handler could not be run, or had to be stopped."""


class HandlerTimeout(HandlerError):
    """The handler ran longer than its timeout."""


class EventMisfit(HandlerError):
    """``event.data`` does not fit the type that the handler asks for; the message has the path.

    Attributes:
        path: where, in field names and indices, with ``[...]`` for a key that only the payload has.
    """

    def __init__(self, message: str = "", *, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class HandlerCrashed(HandlerError):
    """The process died while this job was the only one running in it."""


class LeaseLost(HandlerError):
    """The job's lease ran out while its handler ran; nothing the handler wrote was committed."""


class CommitUnknown(HandlerError):
    """The connection was lost in a handler's commit, which has happened wholly or not at all.

    The job is given back under its fence, which changes nothing where the commit has happened.
    """


class HandlerInUse(AnimicaHooksError):
    """A process that runs has a handler that was to be removed; nothing was changed."""


class ReplayRefused(AnimicaHooksError):
    """The replay was not begun; the message says what to add or leave out."""


class APIError(AnimicaHooksError):
    """A call of an API brought no result.

    One class for all providers; what is not known of a failure is None.

    Attributes:
        message: what happened, in the API's words or ours, without secrets.
        status: the answer's HTTP status; None where there was no answer.
        type: the API's kind of error, such as ``rate_limit_error``.
        code: the API's code of it, such as ``invalid_api_key``.
        param: the request's parameter that it is about.
        request_id: the API's id of the request, for its support.
        body: the answer's body: the JSON's objects, else text.
        headers: the answer's headers, by name in any case, without cookies.
        retry_after: seconds that the API asked to wait, when it asked.
        partial_text: what a stream had brought before it failed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        partial_text: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.request_id = request_id
        self.body = body
        self.headers = headers
        self.retry_after = retry_after
        self.partial_text = partial_text


class APIRequestError(APIError):
    """The request can not be sent as it is; nothing was sent, and the message says why."""


class ClientClosed(APIRequestError):
    """The client was closed; make a new one."""


class APIConnectionError(APIError):
    """The API could not be reached, or did not answer; ``__cause__`` has the transport's error."""


class APITimeoutError(APIConnectionError):
    """The API took longer than one of the timeouts, or than the deadline."""


class APIResponseError(APIError):
    """The answer is not usable: it is incomplete, or not what the API speaks."""


class StreamInterrupted(APIResponseError):
    """A stream broke off, or what it brought was not usable; ``partial_text`` has what came."""


class APIStatusError(APIError):
    """The API answered with a status that is no success."""

    @property
    def status_code(self) -> int | None:
        """The answer's HTTP status, by its other usual name."""
        return self.status

    @property
    def response(self) -> ErrorResponse:
        """The answer: its status, headers and body."""
        return ErrorResponse(self)


class ErrorResponse:
    """The answer that an ``APIStatusError`` was made of.

    Attributes:
        status_code: its HTTP status.
        headers: by name in any case, without cookies.
        body: the JSON's objects, else text.
    """

    __slots__ = ("body", "headers", "status_code")

    def __init__(self, error: APIStatusError) -> None:
        self.status_code = error.status
        self.headers = error.headers or {}
        self.body = error.body

    def __repr__(self) -> str:
        return f"<ErrorResponse {self.status_code}>"

    @property
    def text(self) -> str:
        """The body as text; JSON as it would be written here."""
        import json

        return self.body if isinstance(self.body, str) else json.dumps(self.body)

    def json(self) -> object:
        """Return the body's objects; text where it was not JSON."""
        return self.body


class BadRequestError(APIStatusError):
    """400: the request is not what the API takes."""


class AuthenticationError(APIStatusError):
    """401: the key is missing, wrong or revoked."""


class InsufficientCreditsError(APIStatusError):
    """402: the account has no credit for this."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: there is no such model or path."""


class RequestTimeoutError(APIStatusError):
    """408: the API waited too long for the request."""


class ConflictError(APIStatusError):
    """409: the request is at odds with another."""


class RequestTooLargeError(APIStatusError):
    """413: the request is larger than the API takes."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well formed, and can not be done."""


class RateLimitError(APIStatusError):
    """429: too many requests, or the quota is used up; ``retry_after`` says how long to wait."""


class InternalServerError(APIStatusError):
    """500 and above: the API failed."""


class OverloadedError(InternalServerError):
    """529: the API has too much to do for now."""
