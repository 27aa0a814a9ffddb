"""The clients that the tests run through the same paces: one line each, sync and async alike."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from apiserver import Space

# What each provider's chat is asked for.
CHAT_MODELS = {
    "animica": "anm-fast-8b",
    "andy": "sweaterdog/andy-4:latest",
    "anannas": "openai/gpt-5-mini",
    "anthropic": "claude-3-opus",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A client class of a package, and the provider that it speaks to."""

    module: str
    name: str
    provider: str
    # The resources that it has not, because its provider has not.
    lacks: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The model that tests ask for."""
        return CHAT_MODELS[self.provider]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}-{self.provider}"

    def error(self, name: str) -> type[Exception]:
        """Return one of the package's errors."""
        found: type[Exception] = getattr(importlib.import_module(self.module), name)
        return found

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Any]:
        """Make a client, and close it."""
        # Imported here, so that a package that is not there fails its own tests alone.
        client = getattr(importlib.import_module(self.module), self.name)(**options)
        try:
            yield client
        finally:
            await result(client.close())


# Clients with OpenAI's resources: chat.completions, models, and where not lacking completions and
# embeddings.
OPENAI_LIKE = [
    Kind("openai", name, provider)
    for name in ("OpenAI", "AsyncOpenAI")
    for provider in ("animica", "andy", "anannas")
]
OPENAI_LIKE += [
    Kind(f"animica_hooks.sdk.{name.lower()}", prefix + name, name.lower(), lacks)
    for name, lacks in (
        ("Animica", ()),
        ("Andy", ("completions",)),
        ("Anannas", ("completions", "embeddings")),
    )
    for prefix in ("", "Async")
]
COMPLETING = [kind for kind in OPENAI_LIKE if "completions" not in kind.lacks]
EMBEDDING = [kind for kind in OPENAI_LIKE if "embeddings" not in kind.lacks]

# Clients with Anthropic's: messages, completions.
ANTHROPIC_LIKE = [
    Kind("anthropic", "Anthropic", "anthropic"),
    Kind("anthropic", "AsyncAnthropic", "anthropic"),
    Kind("animica_hooks.sdk.anthropic", "Anthropic", "anthropic"),
    Kind("animica_hooks.sdk.anthropic", "AsyncAnthropic", "anthropic"),
]

# The statuses of errors, and the classes that every package has for them; ours are subclasses where
# the official clients have none.
ERROR_STATUSES = [
    (400, "BadRequestError"),
    (401, "AuthenticationError"),
    (403, "PermissionDeniedError"),
    (404, "NotFoundError"),
    (409, "ConflictError"),
    (422, "UnprocessableEntityError"),
    (429, "RateLimitError"),
    (500, "InternalServerError"),
    (503, "InternalServerError"),
    (529, "InternalServerError"),
    (402, "APIStatusError"),
    (408, "APIStatusError"),
    (413, "APIStatusError"),
]


async def result(value: Any) -> Any:
    """Return what a method returned, awaited where it is to be."""
    return await value if inspect.isawaitable(value) else value


async def items(stream: Any) -> AsyncGenerator[Any, None]:
    """Iterate over a stream, whichever way it goes."""
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


def request_id_of(answer: Any) -> str | None:
    """Return the id of an answer's request, by the name that the package gives it."""
    return getattr(answer, "_request_id", None) or getattr(answer, "request_id", None)


async def until_open(space: Space, connections: int) -> None:
    """Wait until so many connections are open."""
    await to_thread.run_sync(space.wait_for, lambda: space.open_connections == connections)


async def collected(stream: Any) -> list[Any]:
    """Return all of a stream's items."""
    return [item async for item in items(await result(stream))]
