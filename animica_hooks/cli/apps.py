"""From ``module:attribute`` to the app, and to the ``Hooks`` in it."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from animica_hooks.config import find_database_url
from animica_hooks.errors import ConfigurationError
from animica_hooks.hooks import Hooks


def load_app(target: str) -> Any:
    """Import an ASGI app.

    Raises:
        ConfigurationError: there is no such module or attribute, or it is no app.
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
            raise  # one that the app imports
        raise ConfigurationError(
            f"there is no module {error.name!r} in {here} or among what is installed."
        ) from None
    except (TypeError, ValueError):
        raise ConfigurationError(f"{module_name!r} is not the name of a module.") from None
    try:
        app = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise ConfigurationError(f"module {module_name} has no {attribute!r}.") from None
    if not callable(app):
        raise ConfigurationError(f"{target} is no ASGI app, but a {type(app).__name__}.")
    return app


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
