"""Procrastinate behind FastAPI, as its documentation shows: one pool, opened in the lifespan.

The worker is `procrastinate worker` with its defaults.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import procrastinate
from fastapi import FastAPI, Header, HTTPException, Request

from benchmarks.apps.common import URL_VARIABLE
from benchmarks.apps.signature import construct_event

tasks = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ[URL_VARIABLE])
)


@tasks.task(queue="webhooks")
async def ignore_payment(event: dict[str, Any]) -> None:
    """Do nothing."""


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the connections."""
    async with tasks.open_async():
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/")
async def receive_webhook(
    request: Request, x_animica_signature: Annotated[str, Header()]
) -> dict[str, bool]:
    """Verify, defer to the worker, answer."""
    try:
        event = construct_event(await request.body(), x_animica_signature)
    except ValueError:
        raise HTTPException(400, "invalid signature") from None
    await ignore_payment.defer_async(event=event)
    return {"received": True}
