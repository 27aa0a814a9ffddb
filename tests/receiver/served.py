"""Apps for a server in a process of its own: ``uvicorn served:hooks``."""

import os
from typing import Any

from receiving import SECRET

from animica_hooks import Hooks

hooks = Hooks(
    signing_secret=SECRET,
    database_url=os.environ["DATABASE_URL"],
    max_body=1024 * 1024,
    ack_deadline=0.5,
    routers=[],
)


async def greedy(scope: Any, receive: Any, send: Any) -> None:
    """Read the body whole before it looks at it, as many receivers do."""
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b""})
