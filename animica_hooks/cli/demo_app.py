"""The app of ``animica-hooks demo``: what a small shop does when its payment provider calls."""

from __future__ import annotations

import os

from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks import Event, Hooks, Job, RetryPolicy

ledger = Table(
    "shop_ledger",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("payment", String(40), nullable=False),
    Column("amount", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
)
CRM_URL = "SHOP_CRM_URL"  # the environment variable that somebody forgot to set

# The signing secret and the database come from the environment.
hooks = Hooks(routers=[], retry=RetryPolicy(max_attempts=3, base=0.05))


@hooks.on("payment.succeeded", name="book_payment")
async def book_payment(event: Event, session: AsyncSession) -> None:
    """Write to the shop's own table: it commits with the mark that the job is done."""
    booked = {name: event.data[name] for name in ("payment", "amount", "currency")}
    await session.execute(insert(ledger).values(booked))


@hooks.on("invoice.paid", name="mail_receipt", retry=RetryPolicy(max_attempts=5, base=0.1))
def mail_receipt(event: Event, job: Job) -> None:
    """Fail twice, as mail servers do, then succeed. A plain function, in a thread of its own."""
    if job.attempt <= 2:
        raise ConnectionError(f"the mail server is busy: {event.data['invoice']} has to wait")


@hooks.on("customer.deleted", name="tell_crm")
async def tell_crm(event: Event) -> None:
    """Fail until it is configured: each such event ends as a dead letter."""
    if not os.environ.get(CRM_URL):
        raise LookupError(f"{CRM_URL} is not set: nobody to tell of {event.data['customer']}")
