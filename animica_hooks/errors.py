"""Every error this package raises, in one tree.

AnimicaHooksError
├── ConfigurationError            wrong set-up; raised at construction or start, says what to change
├── DeliveryRejected              a delivery that is answered with an error
│   ├── SignatureError            not signed by one of the endpoint's secrets, or not now
│   ├── PayloadTooLarge           the body is over the limit
│   └── MalformedEvent            authentic, but not usable as an event (goes to the quarantine)
├── StoreError                    the database did not do what was asked; trying again may help
│   └── StoreUnavailable          down, slow, full or overloaded
├── HandlerError                  a handler could not be run, or was stopped
│   ├── HandlerTimeout            it ran longer than its timeout
│   ├── EventMisfit               ``event.data`` does not fit the handler's type
│   ├── HandlerCrashed            the process died while only this job was running
│   └── LeaseLost                 another worker has the job by now; nothing was committed
└── ReplayRefused                 a replay that would do more, or less, than it seems

No message carries a secret or a payload. What a handler raises to steer its job
(``RetryLater``, ``Discard``) is an outcome and lives in ``core.outcome``.
"""

from __future__ import annotations

import enum


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


class StoreUnavailable(StoreError):
    """The database is down, slow, full or overloaded; try again later."""


class HandlerError(AnimicaHooksError):
    """A handler could not be run, or had to be stopped."""


class HandlerTimeout(HandlerError):
    """The handler ran longer than its timeout."""


class EventMisfit(HandlerError):
    """``event.data`` does not fit the type that the handler asks for; the message has the path."""


class HandlerCrashed(HandlerError):
    """The process died while this job was the only one running in it."""


class LeaseLost(HandlerError):
    """The job's lease ran out while its handler ran; nothing the handler wrote was committed."""


class ReplayRefused(AnimicaHooksError):
    """The replay was not begun; the message says what to add or leave out."""
