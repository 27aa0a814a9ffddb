"""Which clients are measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

OPENAI = "openai"
OURS = "ours"
ANIMICA_AI = "animica-ai"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One client.

    Attributes:
        module: of benchmarks.sdk.clients.
        packages: what must be installed; without them it is left out, and the report says so.
        trusted: a failure of it fails the whole run.
        soaked: it is looked for what it keeps, too.
    """

    name: str
    about: str
    module: str
    packages: tuple[str, ...]
    trusted: bool = False
    soaked: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def is_installed(self) -> bool:
        """Tell whether it can take part."""
        return all(find_spec(package) is not None for package in self.packages)


CONTESTANTS = (
    Contestant(
        name=OPENAI,
        about="the official client: httpx2 and pydantic",
        module="official_openai",
        packages=("openai",),
    ),
    Contestant(
        name="anthropic",
        about="the official client, on its own API's answers",
        module="official_anthropic",
        packages=("anthropic",),
    ),
    Contestant(
        name=ANIMICA_AI,
        about="the official client: standard library, dicts, a connection per call",
        module="animica_ai_client",
        packages=("animica_ai",),
    ),
    Contestant(
        name="httpx2",
        about="httpx2 and json, dicts",
        module="httpx2_json",
        packages=("httpx2",),
    ),
    Contestant(
        name="aiohttp",
        about="aiohttp and json, dicts; async only",
        module="aiohttp_json",
        packages=("aiohttp",),
    ),
    Contestant(
        name="pyreqwest",
        about="pyreqwest and msgspec, a minimum of types",
        module="pyreqwest_msgspec",
        packages=("pyreqwest",),
    ),
    Contestant(
        name="transport",
        about="the bare transport of ours: bytes out, bytes in",
        module="transport",
        packages=("animica_hooks",),
        trusted=True,
    ),
    Contestant(
        name=OURS,
        about="`animica_hooks.sdk`, typed, with default settings",
        module="ours",
        packages=("animica_hooks",),
        trusted=True,
        soaked=True,
    ),
)
