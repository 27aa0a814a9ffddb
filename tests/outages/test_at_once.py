"""Processes that receive the same event in the same moment."""

import subprocess
import sys
from pathlib import Path

from databases import engine_of, on_every_database
from sqlalchemy import text

HERE = Path(__file__).resolve().parent
PROCESSES, DELIVERIES = 4, 50

# Delivers one event several times at once when a line comes in; runs its handler as well.
RECEIVER = """
import asyncio, sys
from outagekit import make_hooks, post, settled
from animica_hooks import Event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

hooks = make_hooks(sys.argv[1])

@hooks.on("*", name="effect")
async def effect(event: Event, session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})

async def main():
    async with hooks.lifespan():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        answers = await asyncio.gather(*[post(hooks, "evt_1") for _ in range(int(sys.argv[2]))])
        await settled(hooks)
        print({*answers}, flush=True)

asyncio.run(main())
"""


@on_every_database
def test_an_event_that_many_processes_receive_at_once(inbox_url: str, database_kind: str) -> None:
    """Of 50 deliveries to 4 processes one is new, 49 are duplicates, and there is one effect."""
    engine = engine_of(database_kind, inbox_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (id VARCHAR(40))"))
    shares = [len(range(n, DELIVERIES, PROCESSES)) for n in range(PROCESSES)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RECEIVER, inbox_url, str(share)],
            env={"PYTHONPATH": f"{HERE}:{HERE.parent}"},
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for share in shares
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert ["{204}\n"] * PROCESSES == [p.communicate(timeout=60)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    with engine.connect() as connection:
        counts = [
            connection.scalar(text(f"SELECT {what}"))
            for what in (
                "count(*) FROM hooks_events",
                "sum(count) FROM hooks_redeliveries",
                "count(*) FROM effects",
            )
        ]
    engine.dispose()
    assert [1, DELIVERIES - 1, 1] == counts
