"""JSON out and in, by msgspec, which is imported at the first request.

Rule 1: what can not be encoded, NaN and infinity included, is refused before anything is sent.
Rule 2: an answer that is JSON is never an error: what does not fit a type is left to ``lenient``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from animica_hooks.errors import APIRequestError


def _foreign(value: object) -> object:
    """Turn what msgspec does not know into what it does: pydantic models, iterables, mappings."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterator):
        return _finite(msgspec.to_builtins(list(value), enc_hook=_foreign))
    if isinstance(value, Iterable):
        return list(value)
    raise NotImplementedError


def _finite(items: object) -> object:
    """Return what an iterator gave, which can not be looked through again for what is no number.

    Raises:
        APIRequestError: it gave such.
    """
    place = _not_a_number(items)
    if place is not None:
        raise APIRequestError(f"the request has an iterator whose {place} is NaN or infinite.")
    return items


_ENCODER = msgspec.json.Encoder(enc_hook=_foreign)
_decode_any: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def encode(body: Mapping[str, Any]) -> bytes:
    """Return the JSON of a request's body.

    Raises:
        APIRequestError: something in it is not JSON; the message has its type or place, not it.
    """
    try:
        encoded = _ENCODER.encode(body)
    except (TypeError, ValueError, RecursionError, NotImplementedError) as error:
        raise APIRequestError(_explain(body, error)) from None
    # msgspec writes NaN and the infinities as null, so only a body with a null may hold one.
    if b"null" in encoded:
        place = _not_a_number(msgspec.to_builtins(body, enc_hook=_foreign))
        if place is not None:
            raise APIRequestError(f"request{place} is NaN or infinite, which JSON has no word for.")
    return encoded


def _explain(body: Mapping[str, Any], error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the request contains itself, or is nested too deeply, and has no JSON."
    if isinstance(error, UnicodeError):
        return "the request has text with lone surrogates, which is not UTF-8."
    place, found = _unencodable(body, "", 0)
    return f"request{place} is of type {found}, which has no JSON."


def _unencodable(value: object, place: str, depth: int) -> tuple[str, str]:
    """Return the place and the type of what could not be encoded, as exactly as is easy."""
    children: Iterable[tuple[str, object]] = ()
    if isinstance(value, Mapping):
        children = [(f".{key}" if isinstance(key, str) else "[...]", v) for key, v in value.items()]
    elif isinstance(value, list | tuple):
        children = [(f"[{index}]", item) for index, item in enumerate(value)]
    for step, child in children:
        try:
            _ENCODER.encode(child)
        except Exception:  # noqa: BLE001 - whichever way it fails, it is the one
            return _unencodable(child, place + step, depth + 1)
    return place, type(value).__name__


def _not_a_number(value: object) -> str | None:
    """Return the place of the first float that is no number; None where there is none."""
    children: Iterable[tuple[str, object]] = ()
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    if isinstance(value, dict):
        children = ((f".{key}", child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        children = ((f"[{index}]", child) for index, child in enumerate(value))
    for step, child in children:
        if (place := _not_a_number(child)) is not None:
            return step + place
    return None


def decode(content: bytes) -> Any:
    """Return an answer's JSON as plain objects.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        try:
            return _decode_any(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # The standard library takes NaN, which servers in Python are known to send.
            import json

            return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def decode_whatever(content: bytes) -> Any:
    """Return the JSON of an answer that was taken already; None where that can not be.

    What a typed decoder passes over it does not check: the text and the numbers of unknown fields.
    """
    try:
        return decode(content)
    except ValueError:
        pass
    import json

    try:
        return json.loads(content.decode("utf-8", "replace"), parse_int=_whole)
    except (ValueError, RecursionError):
        return None


def _whole(digits: str) -> int | float:
    """Python limits how long a whole number's text may be."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)
