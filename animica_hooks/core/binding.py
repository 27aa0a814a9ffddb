"""What a handler asks for: read once from its signature.

A parameter is known by its annotation (``Event``, ``AsyncSession``, ``Session``, ``Job``), else
by its name (``event``, ``session``, ``job``); a first one that is neither is the event.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import msgspec

from animica_hooks.core.event import Event
from animica_hooks.errors import ConfigurationError, EventMisfit

_BY_ANNOTATION = {"Event": "event", "AsyncSession": "session", "Session": "session", "Job": "job"}
_BY_NAME = frozenset({"event", "session", "job"})
_Convert = Callable[[Any], Any]
# What has the path in a misfit's text, of which the rest may quote the payload.
_PLACE = re.compile(
    r"(?:Object missing required field `([^`]*)`)?.*?(?: - at (?:`key` in )?`(\$[^`]*)`)?",
    re.DOTALL,
)
_QUOTES_A_VALUE = re.compile(r"(Invalid (?:enum )?value) .*?( - at `\$[^`]*`)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Binding:
    """How to call a handler: the names of the parameters that take each thing.

    Attributes:
        is_async: an ``async def``; else it runs in a thread.
    """

    is_async: bool
    event: str
    session: str | None
    job: str | None


def bind(function: Callable[..., Any], name: str) -> Binding:
    """Read a handler's signature.

    Raises:
        ConfigurationError: it takes no event, asks for something unknown, or is a generator.
    """
    target = _unwrap(function)
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise ConfigurationError(f"handler {name} is a generator: remove its yield.")
    is_async = inspect.iscoroutinefunction(target)
    roles: dict[str, str] = {}
    for parameter in _parameters(function, name):
        role = _role(parameter, is_first=not roles)
        if role is None:
            if parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise ConfigurationError(
                    f"handler {name} asks for {parameter.name!r}, which is neither event, session "
                    "nor job: give it a default or remove it."
                )
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(
                f"handler {name}: parameter {parameter.name!r} is positional-only: remove the '/'."
            )
        if role in roles:
            raise ConfigurationError(f"handler {name} asks for the {role} twice.")
        _check_session(parameter, name, is_async=is_async)
        roles[role] = parameter.name
    if "event" not in roles:
        raise ConfigurationError(f"handler {name} takes no event: make it the first parameter.")
    return Binding(is_async, roles["event"], roles.get("session"), roles.get("job"))


def _parameters(function: Callable[..., Any], name: str) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(function).parameters.values()
    except ValueError as error:  # some that are written in C have none
        raise ConfigurationError(f"handler {name}: {error}; wrap it in a function.") from error


def _unwrap(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial | staticmethod):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the bound method itself


def _role(parameter: inspect.Parameter, *, is_first: bool) -> str | None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    by_annotation = _BY_ANNOTATION.get(_class_name(parameter.annotation))
    if by_annotation:
        return by_annotation
    if parameter.name in _BY_NAME:
        return parameter.name
    return "event" if is_first else None


def _class_name(annotation: object) -> str:
    """The bare class name of an annotation, evaluated or not: ``Event`` for ``"x.Event[T]"``."""
    if isinstance(annotation, str):
        return annotation.split("[")[0].split("|")[0].strip(" '\"").rpartition(".")[2]
    origin = typing.get_origin(annotation) or annotation
    return str(getattr(origin, "__name__", ""))


def _check_session(parameter: inspect.Parameter, name: str, *, is_async: bool) -> None:
    asked, fits = _class_name(parameter.annotation), "AsyncSession" if is_async else "Session"
    if asked in ("AsyncSession", "Session") and asked != fits:
        kind = "an async def" if is_async else "a plain def"
        raise ConfigurationError(
            f"handler {name} is {kind}: its session must be {fits}, not {asked}."
        )


def stable_name(function: Callable[..., Any]) -> str:
    """Return ``module.qualname``: the name under which a handler's jobs outlive the process.

    Raises:
        ConfigurationError: it has no name of its own, as a lambda or a partial.
    """
    qualname = getattr(function, "__qualname__", None)
    if qualname is None or qualname.endswith("<lambda>"):
        raise ConfigurationError(
            f"a {type(function).__name__} has no name that outlives the process: pass name=."
        )
    module = function.__module__
    if module == "__main__" and (code := getattr(function, "__code__", None)):
        # `python app.py`, `python -m shop.app` and `animica-hooks worker app:hooks` must agree.
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if spec is not None and spec.origin == code.co_filename:
            module = spec.name
        else:
            module = PurePath(code.co_filename).stem
    return f"{module}.{qualname}"


def data_converter(function: Callable[..., Any], parameter: str, name: str) -> _Convert | None:
    """Return what turns ``event.data`` into the ``T`` of a handler's ``Event[T]``.

    Returns:
        A function that raises ``EventMisfit``; None where the handler asks for a plain ``Event``.

    Raises:
        ConfigurationError: ``T`` can not be found, or is not a type that can be checked.
    """
    target = inspect.unwrap(_unwrap(function))
    annotation = inspect.signature(function).parameters[parameter].annotation
    if isinstance(annotation, str):
        if "[" not in annotation:
            return None
        try:
            hints = typing.get_type_hints(target, localns={"Event": Event})
        except Exception as error:
            raise ConfigurationError(
                f"handler {name}: the annotation {annotation!r} can not be resolved "
                f"({type(error).__name__}: {error}). Import its names at run time, not only under "
                "TYPE_CHECKING."
            ) from error
        annotation = hints[parameter]
    # Itself, or within Annotated[...] or a union; another generic (a dict) is no Event[T].
    for part in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(part) is Event:
            wanted = typing.get_args(part)[0]
            untyped = wanted in (Any, object) or isinstance(wanted, typing.TypeVar)
            return None if untyped else _converter(wanted, name)
    return None


def _converter(wanted: Any, name: str) -> _Convert:
    validate = getattr(wanted, "model_validate", None)  # pydantic's, which is not imported here
    if validate is not None:
        return lambda data: _convert_pydantic(wanted, validate, data)
    try:
        unknown = isinstance(msgspec.inspect.type_info(wanted), msgspec.inspect.CustomType)
    except TypeError as error:
        raise ConfigurationError(f"handler {name}: Event[{wanted!r}]: {error}") from error
    if unknown:
        raise ConfigurationError(
            f"handler {name}: Event[{wanted!r}]: make it a dataclass, TypedDict, msgspec Struct or "
            "pydantic model."
        )
    return lambda data: _convert_msgspec(wanted, data)


def _convert_msgspec(wanted: Any, data: Any) -> Any:
    try:
        return msgspec.convert(data, wanted)
    except msgspec.ValidationError as error:
        # Its text has the path and the types, but may quote a value (an enum's, a tag's).
        raise EventMisfit(
            f"event.data does not fit: {_without_values(str(error))}", path=_path(error)
        ) from None


def _path(error: msgspec.ValidationError) -> str:
    """Return where a misfit is; where a field is missing, that field's place."""
    told = str(error).removeprefix(str(error.__cause__ or ""))  # the user's ``__post_init__``
    found = _PLACE.fullmatch(told)
    missing, place = found.groups() if found else (None, None)
    return (place or "$") + (f".{missing}" if missing else "")


def _convert_pydantic(wanted: Any, validate: _Convert, data: Any) -> Any:
    try:
        return validate(data)
    except ValueError as error:
        details = getattr(error, "errors", None)
        if details is None:
            raise
        first = details(include_url=False, include_input=False, include_context=False)[0]
        path = "$" + "".join(
            f"[{part}]" if isinstance(part, int)
            else f".{part}" if part in _field_names(wanted)
            else "[...]"  # a dict's key, which is the payload's
            for part in first["loc"]
        )  # fmt: skip
        raise EventMisfit(
            f"event.data does not fit: {first['type']} - at `{path}`", path=path
        ) from None


@functools.cache
def _field_names(model: Any) -> frozenset[str]:
    """Return the names of all fields of a pydantic model and of those in it."""
    try:
        parts = [model.model_json_schema()]
    except Exception:  # noqa: BLE001 - one that has no JSON Schema: nothing is known
        return frozenset()
    names: set[str] = set()
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if isinstance(fields := part.get("properties"), dict):
                names.update(fields)
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return frozenset(names)


def _without_values(message: str) -> str:
    quoting = _QUOTES_A_VALUE.fullmatch(message)
    return quoting[1] + (quoting[2] or "") if quoting else message
