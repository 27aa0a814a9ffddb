"""What tutorials teach: FastAPI, a Stripe-style check, SQLAlchemy, BackgroundTasks.

Durable on the way in: WAL with synchronous=FULL, an unique id, the answer after the commit.
Not so afterwards: a background task that dies with its process is never run again.
"""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request
from sqlalchemy import JSON, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.apps.common import SIGNING_SECRET, directory

TOLERANCE_SECONDS = 300

engine = create_async_engine(f"sqlite+aiosqlite:///{directory() / 'x.db'}")
new_session = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def make_durable(connection: Any, _: object) -> None:
    """Ask SQLite for what the other contestants promise."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


class Base(DeclarativeBase):
    """The declarative base."""


class WebhookEvent(Base):
    """One received event."""

    __tablename__ = "webhook_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(default="received")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


async def get_session() -> AsyncIterator[AsyncSession]:
    """Open a session per request."""
    async with new_session() as session:
        yield session


app = FastAPI(lifespan=lifespan)


def construct_event(payload: bytes, header: str) -> dict[str, Any]:
    """Verify the signature header and return the parsed payload."""
    pairs = [item.split("=", 1) for item in header.split(",")]
    timestamp = next(value for key, value in pairs if key == "t")
    signatures = [value for key, value in pairs if key == "v1"]
    signed = f"{timestamp}.{payload.decode()}".encode()
    expected = hmac.new(SIGNING_SECRET.encode(), signed, hashlib.sha256).hexdigest()
    if not any(hmac.compare_digest(expected, signature) for signature in signatures):
        raise ValueError("no signature matches")
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        raise ValueError("timestamp outside the tolerance")
    parsed: dict[str, Any] = json.loads(payload)
    return parsed


async def process(event_id: str) -> None:
    """Handle the event and mark it as processed."""
    async with new_session() as session:
        found = await session.scalars(select(WebhookEvent).where(WebhookEvent.event_id == event_id))
        found.one().status = "processed"
        await session.commit()


@app.post("/")
async def receive_webhook(
    request: Request,
    background_tasks: BackgroundTasks,
    session: Annotated[AsyncSession, Depends(get_session)],
    x_animica_signature: Annotated[str, Header()],
) -> dict[str, bool]:
    """Verify, store, commit, and process after the answer."""
    try:
        parsed = construct_event(await request.body(), x_animica_signature)
    except (ValueError, StopIteration):
        raise HTTPException(400, "invalid signature") from None
    session.add(WebhookEvent(event_id=parsed["id"], type=parsed["type"], payload=parsed))
    try:
        await session.commit()
    except IntegrityError:
        return {"received": True}
    background_tasks.add_task(process, parsed["id"])
    return {"received": True}
