"""What type checkers know of the options that all clients have."""

from __future__ import annotations

from typing import assert_type

import httpx

from animica_hooks.sdk import Andy, AsyncAndy, Timeout
from animica_hooks.sdk.answer import RawResponse
from animica_hooks.sdk.ratelimit import RateLimit
from animica_hooks.sdk.types.openai import ModelList


def copies(client: Andy, coroutines: AsyncAndy) -> None:
    """A copy with other options is of its original's class."""
    assert_type(client.with_options(timeout=Timeout(60.0, read=5.0), max_retries=5), Andy)
    assert_type(client.with_options(deadline=None, default_headers={"X": None}), Andy)
    assert_type(coroutines.with_options(first_token_timeout=1.5), AsyncAndy)
    assert_type(client.with_options(max_retries=5), AsyncAndy)  # type: ignore[assert-type]
    client.with_options(timeout=httpx.Timeout(5))
    client.with_options(timeout="5")  # type: ignore[arg-type]
    client.with_options(max_retries="5")  # type: ignore[arg-type]
    client.with_options(deadline="soon")  # type: ignore[arg-type]
    client.with_options(api_key="x")  # type: ignore[call-arg]
    Timeout("5")  # type: ignore[arg-type]


def closing(client: Andy) -> None:
    """A client is its own context manager."""
    with client as inside:
        assert_type(inside, Andy)


async def closing_coroutines(client: AsyncAndy, threads: Andy) -> None:
    """The same, awaited; each is closed in its own way."""
    async with client as inside:
        assert_type(inside, AsyncAndy)
    with client:  # type: ignore[attr-defined]
        pass
    async with threads:  # type: ignore[attr-defined]
        pass


def facts(client: Andy) -> None:
    """What headers say is parsed, and what they did not say is None."""
    assert_type(client.rate_limit, RateLimit)
    assert_type(client.rate_limit.remaining_requests, int | None)
    raw = client.models.with_raw_response.list()
    assert_type(raw, RawResponse[ModelList])
    assert_type(raw.headers["x-request-id"], str)
    assert_type(raw.retries_taken, int)
    assert_type(raw.rate_limit, RateLimit)
    client.base_url = "https://api.example.com"  # type: ignore[misc]
