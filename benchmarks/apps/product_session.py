"""The product with a handler that writes one row through its `session`."""

from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks import Event, Hooks
from benchmarks.apps.common import SIGNING_SECRET, database_url
from benchmarks.databases import engine_for

URL = database_url()

metadata = MetaData()
# Without a unique key on the event: a handler that ran twice must be seen in the row count.
payments = Table(
    "payments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event_id", String(255), nullable=False),
    Column("amount", Integer, nullable=False),
)
engine = engine_for(URL)
metadata.create_all(engine)
engine.dispose()

hooks = Hooks(signing_secret=SIGNING_SECRET, database_url=URL, auto_migrate=True)


@hooks.on("payment.succeeded")
async def record_payment(event: Event, session: AsyncSession) -> None:
    """Write the payment in the transaction that marks the job as done."""
    await session.execute(insert(payments).values(event_id=event.id, amount=event.data["amount"]))
