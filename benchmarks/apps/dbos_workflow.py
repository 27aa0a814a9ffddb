"""DBOS behind FastAPI, as its README shows for webhooks: the event's id is the workflow's.

The answer follows the row that makes the workflow certain to run; it runs in the same process.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from dbos import DBOS, SetWorkflowID
from fastapi import FastAPI, Header, HTTPException, Request

from benchmarks.apps.common import database_url
from benchmarks.apps.signature import construct_event

DBOS(
    config={
        "name": "webhooks",
        "system_database_url": database_url(),
        "log_level": "WARNING",
    }
)


@DBOS.workflow()
async def ignore_payment(event: dict[str, Any]) -> None:
    """Do nothing."""


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Launch DBOS."""
    DBOS.launch()
    yield
    DBOS.destroy()


app = FastAPI(lifespan=lifespan)


@app.post("/")
async def receive_webhook(
    request: Request, x_animica_signature: Annotated[str, Header()]
) -> dict[str, bool]:
    """Verify, start the workflow, answer."""
    try:
        event = construct_event(await request.body(), x_animica_signature)
    except ValueError:
        raise HTTPException(400, "invalid signature") from None
    with SetWorkflowID(event["id"]):
        await DBOS.start_workflow_async(ignore_payment, event)
    return {"received": True}
