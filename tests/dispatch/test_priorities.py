"""Priorities, from the decorator to the order in which a worker works off what waits."""

from databases import on_every_database
from dispatchkit import deliver, make_hooks, numbered, settled

from animica_hooks import Event


@on_every_database
async def test_the_higher_priority_is_worked_off_first(inbox_url: str) -> None:
    """Though its events came last; and the lower ones go on a little meanwhile."""
    receiver, worker = make_hooks(inbox_url, dispatch=False), make_hooks(inbox_url, concurrency=1)
    ran: list[str] = []
    for hooks in (receiver, worker):

        @hooks.on("low", name="low")
        async def low(event: Event) -> None:
            ran.append("low")

        @hooks.on("high", name="high", priority=5)
        async def high(event: Event) -> None:
            ran.append("high")

    async with receiver.lifespan():
        await deliver(receiver, *numbered(40, "low"), type="low")
        await deliver(receiver, *numbered(40, "high"), type="high")
    async with worker.lifespan():
        await settled(worker)

    assert (40, 40) == (ran.count("low"), ran.count("high"))
    last = len(ran) - ran[::-1].index("high")
    assert 1 <= ran[:last].count("low") <= 20
