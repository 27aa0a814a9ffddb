"""Sign and verify ``X-Animica-Signature``, without I/O and without a clock.

The header is ``t=<unix seconds>,v1=<hex>``, where ``hex`` is the lower-case HMAC-SHA256 of
``"{t}.{raw body}"`` under the endpoint's signing secret, used verbatim as UTF-8.

Rules
1. The grammar is bytes and strict: one ``t``, one to eight ``v1``, nothing else but elements
   of other schemes (``v0=...``), no white space; what is not exactly that is malformed.
2. Grammar and clock are checked before any HMAC is computed, so that a stranger's garbage is cheap.
3. ``parse`` and ``Verifier.check`` return or raise ``SignatureError``, for any bytes whatever.
   Any other exception is a bug.
4. Digests are compared as bytes, in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence

import msgspec

from animica_hooks.errors import ConfigurationError, SignatureError, SignatureReason

HEADER = "X-Animica-Signature"
MAX_HEADER_BYTES = 2048
MAX_CANDIDATES = 8
MIN_SECRET_BYTES = 16

_BLOCK_BYTES = 64  # of SHA-256
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))

_TIMESTAMP = re.compile(rb"0|[1-9][0-9]{0,18}")
_V1 = re.compile(rb"[0-9a-f]{64}")
_OTHER_SCHEME = re.compile(rb"[a-z][a-z0-9_]{0,15}=[0-9A-Za-z+/=_.-]*")


class SignatureHeader(msgspec.Struct, frozen=True, gc=False):
    """A well-formed header: its timestamp as it was sent, for the HMAC, and its digests."""

    timestamp: bytes
    candidates: tuple[bytes, ...]


# What nearly every sender sends: one candidate, in this order. Only a shortcut: what it does not
# match goes through the full grammar.
_USUAL = re.compile(rb"t=(0|[1-9][0-9]{0,18}),v1=([0-9a-f]{64})")


def parse(header: bytes) -> SignatureHeader:
    """Parse the value of the signature header.

    Raises:
        SignatureError: ``MISSING`` when empty, ``MALFORMED`` when not of the grammar.
    """
    if usual := _USUAL.fullmatch(header):
        return SignatureHeader(usual[1], (bytes.fromhex(usual[2].decode()),))
    if not header:
        raise SignatureError(SignatureReason.MISSING)
    if len(header) > MAX_HEADER_BYTES:
        raise SignatureError(SignatureReason.MALFORMED)
    timestamp: bytes | None = None
    candidates: list[bytes] = []
    for element in header.split(b","):
        name, _, value = element.partition(b"=")
        if name == b"t" and timestamp is None and _TIMESTAMP.fullmatch(value):
            timestamp = value
        elif name == b"v1" and _V1.fullmatch(value) and len(candidates) < MAX_CANDIDATES:
            candidates.append(bytes.fromhex(value.decode()))
        elif name in (b"t", b"v1") or not _OTHER_SCHEME.fullmatch(element):
            raise SignatureError(SignatureReason.MALFORMED)
    if timestamp is None or not candidates:
        raise SignatureError(SignatureReason.MALFORMED)
    return SignatureHeader(timestamp, tuple(candidates))


def digest(secret: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Return the 32 bytes that ``v1`` carries as hex."""
    return hmac.digest(secret, timestamp + b"." + body, "sha256")


def sign(body: bytes, secret: str | bytes, *, timestamp: int) -> str:
    """Return the header's value for ``body`` sent at ``timestamp`` (unix seconds)."""
    t = str(timestamp).encode()
    return f"t={timestamp},v1={digest(_encode(secret), t, body).hex()}"


def secret_id(secret: bytes) -> str:
    """Return a short name for a secret, safe to log: 8 hex digits of a digest of it."""
    return hashlib.sha256(b"animica-hooks secret id\0" + secret).hexdigest()[:8]


class _Keyed:
    """HMAC-SHA256 under one secret, half of it computed in advance (RFC 2104, section 4).

    Takes half the time of ``hmac.digest``, and does not give up the GIL for so short a work.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes) -> None:
        key = secret if len(secret) <= _BLOCK_BYTES else hashlib.sha256(secret).digest()
        key = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(key.translate(_INNER_PAD))
        self._outer = hashlib.sha256(key.translate(_OUTER_PAD))

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Verifier:
    """Checks deliveries against the signing secrets of one endpoint.

    Args:
        secrets: newest first; more than one while a secret is being rotated.
        tolerance_s: seconds that the timestamp may be off, to either side.
    """

    __slots__ = ("_ids", "_keyed", "tolerance_s")

    def __init__(self, secrets: Sequence[bytes], *, tolerance_s: float) -> None:
        self._keyed = tuple(map(_Keyed, secrets))
        self._ids = tuple(map(secret_id, secrets))
        self.tolerance_s = tolerance_s

    def __repr__(self) -> str:
        return f"Verifier(secrets={self._ids}, tolerance_s={self.tolerance_s})"

    def is_timely(self, header: SignatureHeader, *, now: float) -> bool:
        """Tell whether the header's timestamp is within the tolerance."""
        return abs(now - int(header.timestamp)) <= self.tolerance_s

    def check_header(self, header: bytes, *, now: float) -> SignatureHeader:
        """Check grammar and clock, before the body is read.

        Raises:
            SignatureError: ``MISSING``, ``MALFORMED`` or ``TIMESTAMP``.
        """
        parsed = parse(header)
        if not self.is_timely(parsed, now=now):
            raise SignatureError(SignatureReason.TIMESTAMP)
        return parsed

    def identify(self, header: SignatureHeader, body: bytes) -> str | None:
        """Return the id of the secret that signed ``body``; None where none of them did."""
        signed = header.timestamp + b"." + body
        for position, keyed in enumerate(self._keyed):
            expected = keyed.digest(signed)
            for candidate in header.candidates:
                if hmac.compare_digest(expected, candidate):
                    return self._ids[position]
        return None

    def check_body(self, header: SignatureHeader, body: bytes) -> str:
        """Return the id of the secret that signed ``body``.

        Raises:
            SignatureError: ``MISMATCH``.
        """
        secret_id = self.identify(header, body)
        if secret_id is None:
            raise SignatureError(SignatureReason.MISMATCH)
        return secret_id


def encode_secrets(secrets: str | Iterable[str]) -> tuple[bytes, ...]:
    """Check signing secrets and return them as bytes, in the order given.

    Raises:
        ConfigurationError: one is blank, masked or shorter than 16 bytes; or there is none.
    """
    several = isinstance(secrets, Iterable) and not isinstance(secrets, str | bytes)
    given = list(secrets) if several else [secrets]
    if not given:
        raise ConfigurationError("signing_secret is an empty list: give at least one secret.")
    return tuple(_checked(secret) for secret in given)


def _checked(secret: object) -> bytes:
    if not isinstance(secret, str):
        raise ConfigurationError(
            f"signing_secret must be a string or a list of strings, not {type(secret).__name__}."
        )
    encoded = _encode(secret)
    where = "Copy it from the endpoint's page at the provider (it begins with whsec_)."
    if not secret.strip():
        raise ConfigurationError(f"signing_secret is blank. {where}")
    if secret != secret.strip():
        raise ConfigurationError(
            "signing_secret has white space at its start or end, which would be part of the key: "
            "remove it."
        )
    if len(set(secret.removeprefix("whsec_"))) == 1:
        raise ConfigurationError(f"signing_secret is a mask, not a secret. {where}")
    if len(encoded) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"signing_secret has {len(encoded)} bytes; at least {MIN_SECRET_BYTES} are needed. "
            f"{where}"
        )
    return encoded


def _encode(secret: str | bytes) -> bytes:
    return secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret


def verify(
    secret: str | bytes,
    payload: str | bytes,
    header: str | bytes,
    *,
    tolerance_s: float,
    now: float,
) -> bool:
    """Tell whether ``header`` signs ``payload``; total: any input gives True or False.

    ``tolerance_s <= 0`` leaves the clock unchecked. A blank secret verifies nothing.
    """
    try:
        key, body = _encode(secret), _encode(payload)
        value = header.encode("latin-1", "replace") if isinstance(header, str) else header
        if not key.strip():
            return False
        verifier = Verifier([key], tolerance_s=float("inf") if tolerance_s <= 0 else tolerance_s)
        verifier.check_body(verifier.check_header(value, now=now), body)
    except Exception:  # noqa: BLE001 - whatever can not be checked is not signed
        return False
    return True
