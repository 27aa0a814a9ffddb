"""Receive webhooks: verified, deduplicated, durable, then handled until each handler is done.

from animica_hooks import Event, Hooks

hooks = Hooks()

@hooks.on("payment.succeeded")
async def record_payment(event: Event) -> None:
    print(event.id, event.data["amount"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from animica_hooks.core.event import Event
    from animica_hooks.core.outcome import Discard, RetryLater
    from animica_hooks.core.retention import Retention
    from animica_hooks.core.retry import RetryPolicy
    from animica_hooks.core.routing import Router, on
    from animica_hooks.dispatch.context import Job
    from animica_hooks.errors import AnimicaHooksError, ConfigurationError
    from animica_hooks.hooks import Hooks
    from animica_hooks.webhook import verify_webhook

__version__ = "0.1.0"

__all__ = [
    "AnimicaHooksError",
    "ConfigurationError",
    "Discard",
    "Event",
    "Hooks",
    "Job",
    "Retention",
    "RetryLater",
    "RetryPolicy",
    "Router",
    "on",
    "verify_webhook",
]

# Each name's module is imported when it is asked for: who uses the SDK alone waits for no receiver.
_HOMES = {
    "AnimicaHooksError": "errors",
    "ConfigurationError": "errors",
    "Discard": "core.outcome",
    "Event": "core.event",
    "Hooks": "hooks",
    "Job": "dispatch.context",
    "Retention": "core.retention",
    "RetryLater": "core.outcome",
    "RetryPolicy": "core.retry",
    "Router": "core.routing",
    "on": "core.routing",
    "verify_webhook": "webhook",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
