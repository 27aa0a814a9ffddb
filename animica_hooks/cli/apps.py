"""From ``module:attribute`` to the app, and to the ``Hooks`` in it."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from animica_hooks.config import find_database_url
from animica_hooks.errors import AnimicaHooksError, ConfigurationError
from animica_hooks.hooks import Hooks

# Frames of ours, and of what imports a module.
_BEFORE_THE_APP = (
    str(Path(__file__).parent) + os.sep,
    str(Path(importlib.__file__).parent) + os.sep,
    "<frozen importlib",
)


def load_app(target: str) -> Any:
    """Import an ASGI app.

    Raises:
        ConfigurationError: there is no such module or attribute, it is no app, or importing it
            fails, of which the traceback is printed.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"{target!r} names no app: write module:attribute, as in app:hooks."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _not_importable(module_name, error) from None  # one that the app imports
        raise ConfigurationError(
            f"there is no module {error.name!r} in {here} or among what is installed."
        ) from None
    except AnimicaHooksError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the app raises
        raise _not_importable(module_name, error) from None
    try:
        app = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise ConfigurationError(f"module {module_name} has no {attribute!r}.") from None
    if not callable(app):
        raise ConfigurationError(f"{target} is no ASGI app, but a {type(app).__name__}.")
    return app


def _not_importable(module_name: str, error: Exception) -> ConfigurationError:
    """Print a traceback from the app's first line on; return what is left to say."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_BEFORE_THE_APP):
        frames = frames.tb_next
    if frames is None and isinstance(error, TypeError | ValueError):
        return ConfigurationError(f"{module_name!r} is not the name of a module.")
    traceback.print_exception(type(error), error, frames)
    return ConfigurationError(f"{module_name} can not be imported: see above.")


def hooks_in(app: Any) -> list[Hooks]:
    """Return each ``Hooks`` that an app is, wraps, or mounts."""
    return list(dict.fromkeys(_find(app, depth=0)))


def _find(app: Any, depth: int) -> Iterator[Hooks]:
    if isinstance(app, Hooks):
        yield app
        return
    if app is None or depth > 50:
        return
    yield from _find(getattr(app, "app", None), depth + 1)  # middlewares, mounts
    routes = getattr(app, "routes", None)
    for route in routes if isinstance(routes, list | tuple) else ():
        yield from _find(route, depth + 1)


def load_hooks(target: str, database_url: str | None) -> Hooks:
    """Import the one ``Hooks`` of an app.

    Args:
        database_url: instead of the app's own.

    Raises:
        ConfigurationError: there is no such app, or not exactly one ``Hooks`` in it.
    """
    found = hooks_in(load_app(target))
    if len(found) != 1:
        raise ConfigurationError(
            f"{target} has {len(found) or 'no'} Hooks that can be found: name one, as in app:hooks."
        )
    use_database(found[0], database_url)
    return found[0]


def use_database(hooks: Hooks, database_url: str | None) -> None:
    """Make an app use another database, where one is given."""
    if database_url is not None:
        url = find_database_url(database_url)
        hooks.settings = replace(hooks.settings, database_url=url)
