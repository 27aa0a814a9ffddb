"""The product on a database server, with default settings and one no-op handler."""

import os

from animica_hooks import Event, Hooks
from benchmarks.apps.common import SIGNING_SECRET
from benchmarks.databases import URL_VARIABLE

hooks = Hooks(
    signing_secret=SIGNING_SECRET, database_url=os.environ[URL_VARIABLE], auto_migrate=True
)


@hooks.on("payment.succeeded")
async def ignore_payment(event: Event) -> None:
    """Do nothing: what is measured is the framework's own work."""
