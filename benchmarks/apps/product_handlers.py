"""The product as it comes, with as many no-op handlers of each event as the environment says."""

import os

from animica_hooks import Event, Hooks
from benchmarks.apps.common import HANDLERS_VARIABLE, SIGNING_SECRET, database_url

hooks = Hooks(signing_secret=SIGNING_SECRET, database_url=database_url(), auto_migrate=True)


async def ignore_payment(event: Event) -> None:
    """Do nothing: what is measured is the framework's own work."""


for number in range(int(os.environ[HANDLERS_VARIABLE])):
    hooks.on("payment.succeeded", name=f"ignore_payment_{number}")(ignore_payment)
