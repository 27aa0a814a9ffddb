"""The envelope: from a verified body to an ``Event``.

Policy for JSON (RFC 8259, as msgspec reads it): UTF-8 without a BOM; ``NaN``, ``Infinity``, numbers
beyond a double or 4,300 digits, lone surrogates and invalid UTF-8 are refused; of a name given
twice the last one counts; arrays and objects nest at most ``MAX_DEPTH`` levels. What is refused
here is authentic all the same, so the receiver keeps it in the quarantine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import accumulate, chain
from typing import Any, Generic, cast

import msgspec
from typing_extensions import TypeVar

from animica_hooks.errors import MalformedEvent

MAX_ID_LENGTH = 255
MAX_TYPE_BYTES = 16 * 1024
MAX_DEPTH = 100

T = TypeVar("T", default=Any)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# One without an end reaches to the end of the body: it is not scanned again from each quote in it.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_decode = msgspec.json.Decoder().decode


def hash_body(body: bytes) -> bytes:
    """Return the digest by which bodies are told apart."""
    return sha256(body).digest()


def decode_payload(body: bytes) -> dict[str, Any]:
    """Decode a verified body to the JSON object that it must be.

    Raises:
        MalformedEvent: not JSON as described above, too deep, or not an object.
    """
    # Counted by taking them out, which is faster than counting.
    opened = 2 * len(body) - len(body.replace(b"[", b"")) - len(body.replace(b"{", b""))
    if opened > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise MalformedEvent(f"it nests deeper than {MAX_DEPTH} levels")
    try:
        payload = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Their text can quote the body.
        raise MalformedEvent("it is not JSON") from None
    if not isinstance(payload, dict):
        raise MalformedEvent("it is JSON, but not an object")
    return payload


def _depth(body: bytes) -> int:
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def check_identity(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Return the event's id and type.

    Raises:
        MalformedEvent: one is missing, not a string, empty, or can not be kept as sent.
    """
    return check_id(payload.get("id")), check_type(payload.get("type"))


def check_id(value: object) -> str:
    """Return ``value`` if it can be an event's id: 1 to 255 printable ASCII characters."""
    if not isinstance(value, str) or not value:
        raise MalformedEvent("it has no id that is a non-empty string")
    if len(value) > MAX_ID_LENGTH or not value.isascii() or not value.isprintable():
        raise MalformedEvent(f"its id is not 1 to {MAX_ID_LENGTH} printable ASCII characters")
    return value


def check_type(value: object) -> str:
    """Return ``value`` if it can be an event's type: any text that every database can hold."""
    if not isinstance(value, str) or not value:
        raise MalformedEvent("it has no type that is a non-empty string")
    if "\0" in value or (len(value) > MAX_TYPE_BYTES // 4 and len(value.encode()) > MAX_TYPE_BYTES):
        raise MalformedEvent(f"its type has a NUL or more than {MAX_TYPE_BYTES} bytes")
    return value


def parse_created(value: object) -> datetime | None:
    """Read epoch seconds or RFC 3339 text; None for anything else."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.upper())  # RFC 3339 allows "t" and "z" too
            return moment.astimezone(UTC) if moment.tzinfo else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _EPOCH + timedelta(seconds=value)
    except (ValueError, OverflowError):
        pass
    return None


class Event(msgspec.Struct, Generic[T], frozen=True, kw_only=True, eq=False, gc=False):
    """The fact that a provider tells us. Frozen; ``event["id"]`` reads the payload like a dict.

    Attributes:
        id: the provider's id, usually ``evt_...``; unique within its endpoint.
        type: what happened, for example ``payment.succeeded``.
        body: the raw bytes, as they were signed.
        endpoint: name of the endpoint that received it.
        received_at: when it was first received (aware, UTC).
        raw_headers: as they are stored; ``headers`` is for reading.
    """

    id: str
    type: str
    body: bytes
    endpoint: str
    received_at: datetime
    raw_headers: bytes = b""
    _payload: dict[str, Any] | None = None
    _data: T | None = None

    @property
    def payload(self) -> dict[str, Any]:
        """The whole JSON object. Each handler gets its own."""
        if self._payload is None:
            msgspec.structs.force_setattr(self, "_payload", decode_payload(self.body))
        return cast("dict[str, Any]", self._payload)

    @property
    def data(self) -> T:
        """``payload["data"]``, or ``{}``; converted where the handler asks for ``Event[T]``."""
        return cast("T", self.payload.get("data", {})) if self._data is None else self._data

    @property
    def created(self) -> datetime:
        """When it happened, as the provider says; ``received_at`` where that is unreadable."""
        return parse_created(self.payload.get("created")) or self.received_at

    @property
    def headers(self) -> Mapping[str, str]:
        """The delivery's headers, names in lower case, credentials left out."""
        return unpack_headers(self.raw_headers)

    def with_data(self, data: Any) -> Event[Any]:
        """Return the same event with ``data`` converted to what a handler asks for."""
        return msgspec.structs.replace(self, _data=data)

    def __getitem__(self, key: str) -> Any:
        return self.payload[key]

    def __contains__(self, key: object) -> bool:
        return key in self.payload

    def __iter__(self) -> Iterator[str]:
        return iter(self.payload)

    def get(self, key: str, default: Any = None) -> Any:
        return self.payload.get(key, default)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (self.endpoint, self.id, self.body) == (other.endpoint, other.id, other.body)

    def __ne__(self, other: object) -> bool:
        return not self == other  # a Struct's own asks whether they are one object

    def __hash__(self) -> int:
        return hash((self.endpoint, self.id))

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id), ("type", self.type), ("endpoint", self.endpoint)]

    def __repr__(self) -> str:
        return f"Event(id={self.id!r}, type={self.type!r}, endpoint={self.endpoint!r})"


CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"cookie"})


def pack_headers(headers: Iterable[tuple[bytes, bytes]], *, credentials: bool = True) -> bytes:
    """Return a delivery's headers (ASGI's: names in lower case) as one string to store.

    Args:
        credentials: whether there may be some, which are left out.
    """
    if credentials:
        headers = [header for header in headers if header[0] not in CREDENTIALS]
    return b"\n".join(chain.from_iterable(headers))


def unpack_headers(packed: bytes) -> dict[str, str]:
    """Return headers that were packed; of several with one name the last."""
    parts = packed.decode("latin-1").split("\n")
    return dict(zip(parts[::2], parts[1::2], strict=False))
