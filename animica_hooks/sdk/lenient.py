"""Typed objects out of JSON that does not quite fit: odd but usable answers are not errors.

Compatible servers send ``choices: null``, a float for ``created``, integer error codes, no ids.
What fits its type is converted; null where a list or object belongs becomes the field's default;
what fits in no way is kept as it is, so that nothing is lost and nothing raises.
"""

from __future__ import annotations

import math
import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

T = TypeVar("T")


def build(value: object, kind: type[T]) -> T:
    """Return ``value`` as ``kind``, as far as it fits; never raises for JSON's objects.

    Raises:
        ValueError: ``kind`` is a Struct and ``value`` no object, so that there is nothing to read.
    """
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - the value came from outside, it is no mistake in a program
            f"expected an object, got {type(value).__name__}"
        )
    built: T = _struct(value, kind)
    return built


def _struct(value: dict[str, Any], kind: Any) -> Any:
    hints = get_type_hints(kind)
    fitting = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in value:
            continue
        given = value[field.encode_name]
        if given is None and not _takes_none(hints[field.name]):
            continue
        fitting[field.name] = _fit(given, hints[field.name])
    return kind(**fitting)


def _fit(value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint, strict=False)
    except (msgspec.ValidationError, TypeError):
        pass
    for kind in _options(hint):
        if get_origin(kind) is list:
            (item,) = get_args(kind)
            return [_fit(one, item) for one in value] if isinstance(value, list) else []
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            # An empty one where there is nothing to read, so that a list keeps its places.
            return _struct(value if isinstance(value, dict) else {}, kind)
        if kind is int and isinstance(value, float) and math.isfinite(value):
            return int(value)
        if kind is str and isinstance(value, int | float):
            return str(value)
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the types that a field may have."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _takes_none(hint: Any) -> bool:
    return hint is Any or types.NoneType in _options(hint)
