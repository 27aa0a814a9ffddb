"""Celery behind FastAPI, as Celery's first steps and FastAPI's users show it.

Redis is broker and result backend, the worker is `celery worker` with its defaults (a process for
each core, tasks acknowledged before they run).
"""

import os
from typing import Annotated, Any

from celery import Celery
from fastapi import FastAPI, Header, HTTPException, Request

from benchmarks.apps.common import URL_VARIABLE
from benchmarks.apps.signature import construct_event

tasks = Celery("webhooks", broker=os.environ[URL_VARIABLE], backend=os.environ[URL_VARIABLE])
app = FastAPI()


@tasks.task
def ignore_payment(event: dict[str, Any]) -> None:
    """Do nothing."""


@app.post("/")
async def receive_webhook(
    request: Request, x_animica_signature: Annotated[str, Header()]
) -> dict[str, bool]:
    """Verify, send to the worker, answer."""
    try:
        event = construct_event(await request.body(), x_animica_signature)
    except ValueError:
        raise HTTPException(400, "invalid signature") from None
    ignore_payment.delay(event)
    return {"received": True}
