"""A shop of its own, in FastAPI, that receives webhooks beside its other endpoints.

$ export ANIMICA_HOOKS_SIGNING_SECRET=whsec_...
$ uvicorn fastapi_app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from animica_hooks import Discard, Event, Hooks, Job, RetryLater

engine = create_async_engine("sqlite+aiosqlite:///shop.db")
hooks = Hooks(database_url="sqlite:///shop.db")  # the same one: handlers write to the shop's tables


class Table(DeclarativeBase):
    pass


class Order(Table):
    __tablename__ = "orders"

    number: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]
    parcel: Mapped[str | None]


class Paid(BaseModel):
    order: int
    amount: int
    live: bool = True


class Shipped(BaseModel):
    order: int


# Event[T] makes event.data a T. An event that does not fit is a dead letter, which says where.
@hooks.on("payment.succeeded")
async def record_order(event: Event[Paid], session: AsyncSession) -> None:
    if not event.data.live:
        raise Discard("a test payment")  # ends the job, without a retry
    session.add(Order(number=event.data.order, amount=event.data.amount))


# What it writes commits together with the mark that its job is done: exactly once. Effects
# elsewhere may be repeated after a crash, so send the job's key along: it stays the same.
@hooks.on("parcel.shipped")
def record_parcel(event: Event[Shipped], session: Session, job: Job) -> None:
    order = session.get(Order, event.data.order)
    if order is None:
        raise RetryLater(0.5)  # events come in any order: this one before its payment
    order.parcel = f"tracked as {job.idempotency_key}"


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Table.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=hooks.lifespan_with(lifespan))
hooks.mount(app, "/webhooks/animica")


@app.get("/orders")
async def list_orders() -> list[dict[str, int | str | None]]:
    async with AsyncSession(engine) as session:
        orders = await session.scalars(select(Order).order_by(Order.number))
        return [{"number": o.number, "amount": o.amount, "parcel": o.parcel} for o in orders]
