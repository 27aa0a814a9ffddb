"""Receive webhooks: verified, deduplicated, durable, then handled until each handler is done.

from animica_hooks import Event, Hooks

hooks = Hooks()

@hooks.on("payment.succeeded")
async def record_payment(event: Event) -> None:
    print(event.id, event.data["amount"])
"""

from __future__ import annotations

from animica_hooks.core.event import Event
from animica_hooks.core.outcome import Discard, RetryLater
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
    "RetryLater",
    "RetryPolicy",
    "Router",
    "on",
    "verify_webhook",
]
