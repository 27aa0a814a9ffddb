"""What may be asked for of stored events and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from animica_hooks.core.job import State
from animica_hooks.core.routing import check_pattern


def fault_of(filters: Mapping[str, Any]) -> str | None:
    """Return why filters, by name, can not be meant; None where they can.

    Raises:
        ConfigurationError: a type is no pattern.
    """
    for name in ("ids", "types", "states", "handlers"):
        if isinstance(filters.get(name), str | bytes):
            return f"{name} must be a list, not a string."
    since, until = filters.get("since"), filters.get("until")
    for name, moment in (("since", since), ("until", until)):
        if not isinstance(moment, datetime | None):
            return f"{name} must be a datetime, not {type(moment).__name__}."
        if moment is not None and moment.tzinfo is None:
            return f"{name} must be aware: give it a time zone."
    if since is not None and until is not None and since >= until:
        return (
            "since must be before until: nothing was received after the one and before the other."
        )
    for pattern in filters.get("types") or ():
        check_pattern(pattern)
    for state in filters.get("states") or ():
        if state not in list(State):
            return f"no job is ever {state!r}: it is one of {', '.join(State)}."
    limit = filters.get("limit")
    return None if limit is None or limit >= 1 else f"limit must be 1 or more, not {limit}."
