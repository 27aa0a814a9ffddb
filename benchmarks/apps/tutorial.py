"""What tutorials teach: FastAPI, a Stripe-style check, SQLAlchemy, BackgroundTasks.

Durable on the way in: an unique id, the answer after the commit; on SQLite WAL with
synchronous=FULL. Not so afterwards: a background task that dies with its process is never run
again. On PostgreSQL it has a pool of 20, for with SQLAlchemy's default of 5 it waits for them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request
from sqlalchemy import JSON, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.apps.common import database_url
from benchmarks.apps.signature import construct_event

URL = database_url(sqlite="sqlite+aiosqlite", postgresql="postgresql+asyncpg")

is_sqlite = URL.startswith("sqlite")
engine = create_async_engine(URL) if is_sqlite else create_async_engine(URL, pool_size=20)
new_session = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def make_durable(connection: Any, _: object) -> None:
    """Ask SQLite for what the other contestants promise."""
    if not is_sqlite:
        return
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
    except ValueError:
        raise HTTPException(400, "invalid signature") from None
    session.add(WebhookEvent(event_id=parsed["id"], type=parsed["type"], payload=parsed))
    try:
        await session.commit()
    except IntegrityError:
        return {"received": True}
    background_tasks.add_task(process, parsed["id"])
    return {"received": True}
