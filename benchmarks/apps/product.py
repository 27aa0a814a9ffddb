"""The product as it comes: default settings, fully durable, one no-op handler."""

from animica_hooks import Event, Hooks
from benchmarks.apps.common import SIGNING_SECRET, database_url

url = database_url()
hooks = Hooks(signing_secret=SIGNING_SECRET, database_url=url, auto_migrate=True)
receiver = Hooks(signing_secret=SIGNING_SECRET, database_url=url, auto_migrate=True, dispatch=False)


@hooks.on("payment.succeeded")
@receiver.on("payment.succeeded")
async def ignore_payment(event: Event) -> None:
    """Do nothing: what is measured is the framework's own work."""
