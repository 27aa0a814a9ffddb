"""The product on an SQLite that takes no more than so many events a second."""

import asyncio
import os

from animica_hooks import Event, Hooks
from animica_hooks.store.admission import Admission
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.sqlite import SqliteStore
from benchmarks.apps.common import SIGNING_SECRET, directory
from benchmarks.overload import CAPACITY, UNBOUNDED

hooks = Hooks(signing_secret=SIGNING_SECRET, database_url=f"sqlite:///{directory() / 'x.db'}")
_commit = SqliteStore.commit


async def _commit_slowly(store: SqliteStore, batch: Batch) -> Committed:
    await asyncio.sleep(len(batch.deliveries) / CAPACITY)
    return await _commit(store, batch)


SqliteStore.commit = _commit_slowly  # type: ignore[method-assign]
if UNBOUNDED in os.environ:
    Admission.note = lambda *_: None  # type: ignore[method-assign, misc, assignment]


@hooks.on("payment.succeeded")
async def ignore_payment(event: Event) -> None:
    """Do nothing."""
