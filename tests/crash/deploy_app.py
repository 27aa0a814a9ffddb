"""The app of two releases: the next has one handler more, one less, and one renamed."""

import asyncio
import os

from appkit import done, end_with_the_test
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks import Event, Hooks, RetryPolicy
from animica_hooks.store.schema import HEAD

IS_NEXT = "DEPLOY_NEXT" in os.environ

hooks = Hooks(
    routers=[],
    lease=1,
    concurrency=8,
    # Kills must not use up the attempts of jobs that happen to run alone.
    retry=RetryPolicy(max_attempts=1000, base=0.05, max_delay=0.2),
)
end_with_the_test()


def key(event: Event) -> str:
    sender: str = event.data["sender"]
    return sender


async def do(handler: str, event: Event, session: AsyncSession) -> None:
    row = {"handler": handler, "event_id": event.id, "schema_known": HEAD}
    await session.execute(insert(done).values(row))
    await asyncio.sleep(0.005)  # in which kills meet it


@hooks.on("order.*", name="stays")
async def stays(event: Event, session: AsyncSession) -> None:
    await do("stays", event, session)


@hooks.on("order.*", name="stays in line", key=key)
async def stays_in_line(event: Event, session: AsyncSession) -> None:
    await do("stays in line", event, session)


@hooks.on(
    "order.*",
    name="after" if IS_NEXT else "before",
    aliases=["before"] if IS_NEXT else [],
)
async def is_renamed(event: Event, session: AsyncSession) -> None:
    await do("is renamed", event, session)


if IS_NEXT:

    @hooks.on("order.*", name="comes", key=key)
    async def comes(event: Event, session: AsyncSession) -> None:
        await do("comes", event, session)

else:

    @hooks.on("order.*", name="leaves")
    async def leaves(event: Event, session: AsyncSession) -> None:
        await do("leaves", event, session)
