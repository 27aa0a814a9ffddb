"""Clients of the APIs of Animica, Anthropic, the Andy API and Anannas.

from animica_hooks.sdk import Animica

client = Animica()  # the key from ANIMICA_API_KEY, or as an argument
answer = client.chat.completions.create(
    model="anm-fast-8b", messages=[{"role": "user", "content": "Hello"}]
)
print(answer.choices[0].message.content)

Each provider has a module: importing one client loads nothing of the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from animica_hooks.errors import APIError
    from animica_hooks.sdk import anannas, andy, animica, anthropic
    from animica_hooks.sdk.anannas import Anannas, AsyncAnannas
    from animica_hooks.sdk.andy import Andy, AsyncAndy
    from animica_hooks.sdk.animica import Animica, AnimicaError, AsyncAnimica
    from animica_hooks.sdk.anthropic import Anthropic, AsyncAnthropic
    from animica_hooks.sdk.timeout import Timeout
    from animica_hooks.webhook import verify_webhook

_HOMES = {
    "APIError": "animica_hooks.errors",
    "Anannas": "animica_hooks.sdk.anannas",
    "Andy": "animica_hooks.sdk.andy",
    "Animica": "animica_hooks.sdk.animica",
    "AnimicaError": "animica_hooks.sdk.animica",
    "Anthropic": "animica_hooks.sdk.anthropic",
    "AsyncAnannas": "animica_hooks.sdk.anannas",
    "AsyncAndy": "animica_hooks.sdk.andy",
    "AsyncAnimica": "animica_hooks.sdk.animica",
    "AsyncAnthropic": "animica_hooks.sdk.anthropic",
    "Timeout": "animica_hooks.sdk.timeout",
    "verify_webhook": "animica_hooks.webhook",
}
_PROVIDERS = frozenset({"anannas", "andy", "animica", "anthropic"})

__all__ = [
    "APIError",
    "Anannas",
    "Andy",
    "Animica",
    "AnimicaError",
    "Anthropic",
    "AsyncAnannas",
    "AsyncAndy",
    "AsyncAnimica",
    "AsyncAnthropic",
    "Timeout",
    "anannas",
    "andy",
    "animica",
    "anthropic",
    "verify_webhook",
]


def __getattr__(name: str) -> object:
    if name in _PROVIDERS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
