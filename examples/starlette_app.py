"""A shop of its own, in Starlette, that receives webhooks beside its other routes.

$ export ANIMICA_HOOKS_SIGNING_SECRET=whsec_...
$ uvicorn starlette_app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from animica_hooks import Event, Hooks, RetryPolicy

engine = create_async_engine("sqlite+aiosqlite:///shop.db")
hooks = Hooks(database_url="sqlite:///shop.db")  # the same one: handlers write to the shop's tables


class Table(DeclarativeBase):
    pass


class Payment(Table):
    __tablename__ = "payments"

    id: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]
    state: Mapped[str] = mapped_column(default="paid")


# What a handler writes through its session commits together with the mark that its job is done:
# exactly once, however often it is run.
@hooks.on("payment.succeeded")
async def record_payment(event: Event, session: AsyncSession) -> None:
    session.add(Payment(id=event.data["id"], amount=event.data["amount"]))


# A plain function runs in a thread. Events come in any order: one that comes before the payment
# that it refunds fails, and is tried again later.
@hooks.on("payment.refunded", retry=RetryPolicy(base=0.2, max_delay=60, max_attempts=10))
def record_refund(event: Event, session: Session) -> None:
    session.get_one(Payment, event.data["id"]).state = "refunded"


async def list_payments(_: Request) -> JSONResponse:
    async with AsyncSession(engine) as session:
        payments = await session.scalars(select(Payment).order_by(Payment.id))
        return JSONResponse([[p.id, p.amount, p.state] for p in payments])


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Table.metadata.create_all)
    yield
    await engine.dispose()


app = Starlette(
    routes=[Route("/payments", list_payments), *hooks.routes("/webhooks/animica")],
    lifespan=hooks.lifespan_with(lifespan),
)
