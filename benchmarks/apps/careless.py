"""Another receiver, `CARELESS_APP`, which never hears of one delivery in 20 that is acked.

For the self-check: what reads a receiver's database must notice.
"""

import os

from uvicorn.importer import import_from_string

from benchmarks.apps import asgi

EVERY = 20
# The probes come first, and are not what is looked at.
SPARED = 20

inner = import_from_string(os.environ["CARELESS_APP"])


class Careless:
    """Passes most requests on."""

    def __init__(self) -> None:
        self.deliveries = 0

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Pass it on, or answer."""
        if scope["type"] == "http":
            self.deliveries += 1
            if self.deliveries > SPARED and self.deliveries % EVERY == 0:
                await asgi.read(receive)
                await send(asgi.start(204))
                await send(asgi.END)
                return
        await inner(scope, receive, send)


app = Careless()
