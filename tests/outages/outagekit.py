"""An app and its senders, for tests in which the database goes away."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import URL, make_url, text

from animica_hooks import Hooks, RetryPolicy
from animica_hooks.testing import make_event, sign

SECRET = "whsec_CANARY-of-the-outage-tests"
PATIENCE_S = 30.0


def make_hooks(url: str | URL, **options: Any) -> Hooks:
    if isinstance(url, URL):
        url = url.render_as_string(hide_password=False)
    defaults = {
        "signing_secret": SECRET,
        "database_url": url,
        "auto_migrate": True,
        "routers": [],
        "retry": RetryPolicy(max_attempts=1000, base=0.05, max_delay=0.2),
    }
    return Hooks(**{**defaults, **options})


def through(url: str, port: int) -> URL:
    """Return a database's URL by way of a proxy."""
    return make_url(url).set(host="127.0.0.1", port=port)


async def post(app: Hooks, id: str) -> int:
    """Deliver an event over ASGI, signed; return the status of the answer."""
    body = make_event("order.paid", id=id)
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"x-animica-signature", sign(body, SECRET).encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    await app({**scope, "query_string": b"", "root_path": ""}, receive, send)
    status: int = sent[0]["status"]
    return status


async def insist(app: Hooks, id: str) -> None:
    """Deliver an event as senders do: again, until it is acknowledged."""
    async with asyncio.timeout(PATIENCE_S):
        while await post(app, id) != 204:
            await asyncio.sleep(0.05)


async def timed(awaitable: Awaitable[Any]) -> tuple[Any, float]:
    """Return a result, and how many seconds it took."""
    began = time.monotonic()
    return await awaitable, time.monotonic() - began


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            so = condition()
            if so if isinstance(so, bool) else await so:
                return
            await asyncio.sleep(0.02)


async def execute(hooks: Hooks, statement: str) -> None:
    assert hooks._runtime is not None
    async with hooks._runtime.store.write("test") as connection:
        await connection.exec_driver_sql(statement)


async def column(hooks: Hooks, statement: str) -> list[Any]:
    """Return the first column of a query's rows."""
    assert hooks._runtime is not None
    async with hooks._runtime.store.read() as connection:
        return list(await connection.scalars(text(statement)))


async def settled(hooks: Hooks) -> None:
    """Wait until no job is to run any more."""

    async def over() -> bool:
        stats = await hooks.stats()
        return stats.available + stats.leased == 0

    await until(over)
