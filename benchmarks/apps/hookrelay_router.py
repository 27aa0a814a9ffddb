"""hookrelay, as its README shows: its router in FastAPI, its worker as a background task."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from hookrelay import RetryPolicy, WebhookEvent, Worker
from hookrelay.backends.postgres import PostgresBackend
from hookrelay.backends.sqlite import SQLiteBackend
from hookrelay.fastapi import create_webhook_router
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.apps.common import database_url
from benchmarks.apps.signature import HEADER, is_valid

URL = database_url(sqlite="sqlite+aiosqlite", postgresql="postgresql+asyncpg")

Backend = SQLiteBackend if URL.startswith("sqlite") else PostgresBackend
backend = Backend(create_async_engine(URL), retry_policy=RetryPolicy(max_attempts=5))


async def ignore_payment(event: WebhookEvent) -> None:
    """Do nothing."""


def verify_signature(body: bytes, headers: Mapping[str, str]) -> bool:
    """Tell whether the body was signed with the secret, now."""
    return is_valid(body, headers.get(HEADER, ""))


def event_id(payload: dict[str, Any]) -> str:
    """Return what two deliveries of one event share."""
    return str(payload["id"])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table, and work in the background."""
    await backend.init_schema()
    working = asyncio.create_task(Worker(backend, ignore_payment).run_forever())
    yield
    working.cancel()


app = FastAPI(lifespan=lifespan)
app.include_router(
    create_webhook_router(
        backend=backend,
        source="animica",
        verify_signature=verify_signature,
        idempotency_key=event_id,
    )
)
