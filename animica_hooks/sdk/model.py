"""The base of all typed answers.

Their fields are what the APIs document, each with a default, because compatible servers leave out
what they like. What else an API sends is kept: ``to_dict()`` has all of it, and an attribute that
is no field is looked up there, so that ``message.vendor_field`` works as for a documented field.
The answer's bytes are kept for that, and decoded again only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

    def to_dict(self) -> dict[str, Any]:
        """Return all that the API sent of this, fields that this package does not know included.

        What a program made itself, instead of an API, is returned with the fields that are set.
        """
        source: Source | None = self.__dict__.get("_source")
        if source is None:
            made: dict[str, Any] = msgspec.to_builtins(self)
            return made
        found = _found(source)
        return found if isinstance(found, dict) else {}

    def to_json(self, *, indent: int | None = None) -> str:
        """Return ``to_dict()`` as JSON."""
        import json

        return json.dumps(self.to_dict(), indent=indent)

    # The names that these have in the official clients.
    model_dump = to_dict
    model_dump_json = to_json

    @property
    def extra(self) -> dict[str, Any]:
        """What the API sent beside the fields that this package knows."""
        known = self.__struct_encode_fields__
        return {name: value for name, value in self.to_dict().items() if name not in known}

    def __getattr__(self, name: str) -> Any:
        # Only called for what is no field.
        if not name.startswith("_") and "_source" in self.__dict__:
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
