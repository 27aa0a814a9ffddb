"""The product in two processes, one that receives and one that handles, and how soon it does."""

import os
import time

from animica_hooks import Event, Hooks
from benchmarks.apps.common import SIGNING_SECRET, directory
from benchmarks.databases import URL_VARIABLE
from benchmarks.start import LAGS

url = os.environ.get(URL_VARIABLE, f"sqlite:///{directory() / 'x.db'}")
receiver = Hooks(signing_secret=SIGNING_SECRET, database_url=url, auto_migrate=True, dispatch=False)
worker = Hooks(signing_secret=SIGNING_SECRET, database_url=url, auto_migrate=True)
lags = (directory() / LAGS).open("a", buffering=1)


@receiver.on("payment.succeeded", name="note")
@worker.on("payment.succeeded", name="note")
async def note_start(event: Event) -> None:
    """Write down the seconds since the event was received, its commit included."""
    lags.write(f"{time.time() - event.received_at.timestamp()}\n")
