"""The base of all typed answers.

Their fields are what the APIs document, each with a default, because compatible servers leave out
what they like. What else an API sends is kept: ``to_dict()`` has all of it, and an attribute that
is no field is looked up there, so that ``message.vendor_field`` works as for a documented field.
The answer's bytes are kept for that, and decoded again only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypeVar

import msgspec

from animica_hooks.sdk.codec import decode, decode_whatever

if TYPE_CHECKING:
    from animica_hooks.sdk.answer import Answer, Headers

M = TypeVar("M", bound="Model")

# Where an object stands in an answer: the answer's bytes, or the place of what it is in, and the
# steps from there.
Source: TypeAlias = "bytes | tuple[Source, str] | tuple[Source, str, int]"


class Model(msgspec.Struct, dict=True, omit_defaults=True):
    """An object of an API's answer."""

    # Fields that hold models, or lists of them: they are told where in the answer they stand.
    _inner: ClassVar[tuple[str, ...]] = ()

    def to_dict(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Return all that the API sent of this, fields that this package does not know included.

        What a program made itself, instead of an API, is returned with the fields that are set.

        Args:
            exclude_none: leave out what is null, at any depth.
        """
        source: Source | None = self.__dict__.get("_source")
        found = _made(self) if source is None else _found(source)
        if not isinstance(found, dict):
            return {}
        return _without_none(found) if exclude_none else found

    def to_json(self, *, indent: int | None = None, exclude_none: bool = False) -> str:
        """Return ``to_dict()`` as JSON."""
        import json

        return json.dumps(self.to_dict(exclude_none=exclude_none), indent=indent)

    def model_dump(
        self,
        *,
        mode: str = "python",  # noqa: ARG002 - what these two ask for is so anyway
        exclude_none: bool = False,
        exclude_unset: bool = True,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return ``to_dict()``, by its name in the official clients.

        In either mode these are JSON's objects, and what the API did not send is never in them.
        """
        return self.to_dict(exclude_none=exclude_none)

    def model_dump_json(
        self,
        *,
        indent: int | None = None,
        exclude_none: bool = False,
        exclude_unset: bool = True,  # noqa: ARG002 - it is so anyway
    ) -> str:
        """Return ``to_json()``, by its name in the official clients."""
        return self.to_json(indent=indent, exclude_none=exclude_none)

    if not TYPE_CHECKING:
        # pydantic 1 has these names for them; to checkers the first would hide the type's.
        dict = to_dict
        json = to_json

    @property
    def extra(self) -> dict[str, Any]:
        """What the API sent beside the fields that this package knows."""
        known = self.__struct_encode_fields__
        return {name: value for name, value in self.to_dict().items() if name not in known}

    def __getattr__(self, name: str) -> Any:
        # Only called for what is no field.
        if not name.startswith("_") and self.__dict__:
            found = self.to_dict()
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}, and the API sent none")

    def __getitem__(self, name: str) -> Any:
        """Read as a dict: ``answer["choices"][0]["message"]``, as the API sent it."""
        return self.to_dict()[name]

    def __contains__(self, name: object) -> bool:
        return name in self.to_dict()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_dict())

    def keys(self) -> Iterable[str]:
        """Return the names of what the API sent: ``dict(answer)`` is ``to_dict()``."""
        return self.to_dict().keys()

    def __copy__(self) -> Self:
        made: Self = super().__copy__()  # type: ignore[misc] # only its stub lacks it
        made.__dict__.update(self.__dict__)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        # Structs leave out their __dict__, which has what the fields have not.
        fields = tuple(getattr(self, name) for name in self.__struct_fields__)
        return (type(self), fields, self.__dict__ or None)


class Result(Model):
    """A whole answer."""

    @property
    def request_id(self) -> str | None:
        """The API's id of the request, for its support."""
        answer: Answer | None = self.__dict__.get("_answer")
        return answer.request_id if answer is not None else None

    @property
    def response_headers(self) -> Headers | None:
        """The answer's headers; None where a program made this itself."""
        answer: Answer | None = self.__dict__.get("_answer")
        return answer.headers if answer is not None else None

    # The name that the official clients have for it.
    _request_id = request_id


def as_sent(value: object) -> object:
    """Return an answer's object, or a list of them, as a request repeats it; the rest as it is.

    What the API sent must come back whole, with fields that this package does not know: signatures
    of a model's thoughts are such. A program may have changed the fields that are known.
    """
    if isinstance(value, list):
        return [as_sent(one) if isinstance(one, Model) else one for one in value]
    if not isinstance(value, Model):
        return value
    return {**_set_fields(value), **value.extra}


def keep_unknown(whole: Model, part: Model) -> None:
    """Keep what the API sent in a part beside the known fields: the newest of each name."""
    if unknown := part.extra:
        whole.__dict__.setdefault("_unknown", {}).update(unknown)


def _made(model: Model) -> dict[str, Any]:
    """Return what a program has made as a dict, or what a stream has added up to."""
    return {**model.__dict__.get("_unknown", {}), **_set_fields(model)}


def _set_fields(model: Model) -> dict[str, Any]:
    blank = type(model)()
    known = {name: getattr(model, name) for name in model.__struct_fields__}
    return {name: as_sent(one) for name, one in known.items() if one != getattr(blank, name)}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def _found(source: Source) -> Any:
    """Return what the API sent at a place; None where it sent nothing that has such a place."""
    if isinstance(source, bytes):
        return decode_whatever(source)
    outer, *steps = source
    found = _found(outer)
    try:
        for step in steps:
            found = found[step]
    except (KeyError, IndexError, TypeError):
        return None
    return found


def model_decoder(kind: type[M]) -> Callable[[bytes], M]:
    """Return what decodes an answer, or a stream's chunk, as ``kind``.

    It is exact where the JSON fits, and else takes what does. The function raises ValueError where
    there is no JSON object.
    """
    exact = msgspec.json.Decoder(kind).decode

    def decode_model(content: bytes) -> M:
        try:
            made = exact(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            from animica_hooks.sdk.lenient import build

            made = build(decode(content), kind)
        _place(made, content)
        return made

    return decode_model


def _place(model: Model, source: Source) -> None:
    """Tell a model, and those in it, where in the answer they stand."""
    model.__dict__["_source"] = source
    for field in model._inner:
        value = getattr(model, field)
        if value.__class__ is list:
            for index, one in enumerate(value):
                _place(one, (source, field, index))
        elif value is not None:
            _place(value, (source, field))
