"""A worker on a real store, with the clock and the dice in the test's hands; and whole apps."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import func, select

from animica_hooks import Hooks, RetryPolicy, Router
from animica_hooks.core.event import Event
from animica_hooks.core.outcome import SECOND, from_micros
from animica_hooks.dispatch.runner import Runner, prepare
from animica_hooks.dispatch.worker import Worker
from animica_hooks.store import inbox
from animica_hooks.store.base import Store
from animica_hooks.store.committer import Committer
from animica_hooks.store.connect import make_store
from animica_hooks.store.queries import find_failures, find_jobs
from animica_hooks.store.records import NewEvent, new_job
from animica_hooks.store.tables import jobs
from animica_hooks.store.views import FailureView, JobView
from animica_hooks.telemetry import Counters, Observation, Telemetry
from animica_hooks.testing import make_event, sign
from animica_hooks.threads import DaemonThreads

FULL = os.environ.get("ANIMICA_HOOKS_TEST_SIZE") == "full"
SECRET = "whsec_CANARY-of-the-dispatch-tests"
NOON = 1_700_000_000 * SECOND
PATIENCE_S = 20.0  # after which a test that waits for something has failed
ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = RetryPolicy(max_attempts=3, base=0)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.micros = NOON

    def __call__(self) -> int:
        return self.micros

    def advance(self, seconds: float) -> None:
        self.micros += round(seconds * SECOND)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something is so that nothing tells of."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            so = condition()
            if so if isinstance(so, bool) else await so:
                return
            await asyncio.sleep(0.005)


class Bench:
    """One worker as a process has it, without HTTP around it.

    Args:
        router: whose handlers it runs.
        clock: the store's; real time without one.
        rand: draws what spreads the retries.

    Attributes:
        looks: how often the worker has looked for jobs.
        seen: all observations.
    """

    def __init__(
        self,
        url: str,
        router: Router,
        *,
        clock: Clock | None = None,
        rand: Callable[[], float] = lambda: 0.5,
        concurrency: int = 16,
        threads: int = 8,
        timeout: float = 30.0,
        retry: RetryPolicy = ONCE,
        lease_s: float = 30.0,
        owner: str = "bench",
    ) -> None:
        self.router = router
        self.store: Store = make_store(url, owner=owner, lease_s=lease_s, handlers=concurrency)
        if clock is not None:
            setattr(self.store, "now", clock)  # noqa: B010 - mypy takes it for a method
        self.options = {"concurrency": concurrency, "threads": threads, "rand": rand}
        self.timeout = timeout
        self.retry = retry
        self.counters = Counters()
        self.seen: list[Observation] = []
        self.looks = 0
        self._looking = False
        self.running = False

    async def start(self) -> None:
        await self.store.open(migrate=True)
        async with self.store.write("registration") as connection:
            self.ids = await inbox.register_handlers(connection, self.router.handlers, NOON)
        prepared = {
            self.ids[h.name]: prepare(h, retry=self.retry, timeout=self.timeout)
            for h in self.router.handlers
        }
        telemetry = Telemetry([self.counters, self.seen.append])
        self.threads = DaemonThreads("bench")
        runner = Runner(self.store, self.threads)
        self.worker = Worker(self.store, telemetry, runner, prepared, **self.options)  # type: ignore[arg-type]
        self.committer = Committer(
            self.store,
            telemetry,
            room=self.worker.room,
            on_leased=self.worker.accept,
            on_due=self.worker.wake_at,
            ack_deadline=30.0,
        )
        self._count_looks()
        self.worker.start(self.committer)
        self.running = True

    def _count_looks(self) -> None:
        read = self.store.read

        @asynccontextmanager
        async def counted() -> AsyncIterator[Any]:
            self._looking = True
            try:
                async with read() as connection:
                    yield connection
                self.looks += 1
            finally:
                self._looking = False

        self.worker._store = _Reading(self.store, counted)  # type: ignore[assignment]

    async def stop(self, seconds: float = 5.0) -> None:
        if self.running:
            self.running = False
            await self.worker.drain(seconds)
            await self.committer.close()
            self.threads.close()
            await self.store.close()

    async def deliver(self, *ids: str, type: str = "order.paid", data: Any = None) -> None:
        """Have events stored, each with its jobs."""
        await asyncio.gather(*[self.committer.deliver(self.new(id, type, data)) for id in ids])

    async def deliver_in_line(self, *ids: str, type: str = "order.paid", data: Any = None) -> None:
        """Have events stored as a receiver does for handlers that are not plain."""
        for id in ids:
            new = self.new(id, type, data)
            by_id = {self.ids[h.name]: h for h in self.router.handlers}
            new.others = tuple(new_job(n, by_id[n], new.event) for n in new.handler_ids)
            new.handler_ids = ()
            await self.committer.deliver(new)

    def new(self, id: str, type: str = "order.paid", data: Any = None) -> NewEvent:
        body = json.dumps({"id": id, "type": type, "data": data or {}}).encode()
        now = self.store.now()
        event: Event[Any] = Event(
            id=id, type=type, body=body, endpoint="animica", received_at=from_micros(now)
        )
        handlers = [self.ids[h.name] for h in self.router.handlers if h.takes("animica", type)]
        return NewEvent(event, now, tuple(handlers), "secret")

    async def looked(self) -> None:
        """Wait until the worker has looked for jobs once more, from the beginning to the end."""
        looks = self.looks
        self.worker.wake()
        await until(lambda: self.looks >= looks + 2 or self._wake_again())

    def _wake_again(self) -> bool:
        self.worker.wake()
        return False

    async def idle(self) -> None:
        """Wait until the worker has found nothing to do, and waits itself."""
        looks = -1
        async with asyncio.timeout(PATIENCE_S):
            while looks != self.looks or self._looking:
                looks = self.looks
                await asyncio.sleep(0.1)

    async def jobs(self, **filters: Any) -> list[JobView]:
        """Return jobs, oldest first."""
        found = [job async for job in find_jobs(self.store, **filters)]
        return found[::-1]

    async def job(self, **filters: Any) -> JobView:
        [job] = await self.jobs(**filters)
        return job

    async def failures(self, job_id: int) -> list[FailureView]:
        return await find_failures(self.store, job_id)

    async def count(self, *states: str) -> int:
        async with self.store.read() as connection:
            query = select(func.count()).select_from(jobs).where(jobs.c.state.in_(states))
            return await connection.scalar(query) or 0

    async def settled(self) -> None:
        """Wait until no job is to run any more."""

        async def over() -> bool:
            return not await self.count("available", "leased")

        await until(over)

    async def attempted(self, times: int) -> JobView:
        """Wait until the only job waits for another attempt after so many; return it."""

        async def over() -> bool:
            job = await self.job()
            return (job.state, job.attempts) == ("available", times)

        await until(over)
        return await self.job()


class _Reading:
    """A store whose reads are counted."""

    def __init__(self, store: Store, read: Callable[[], Any]) -> None:
        self._store = store
        self.read = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


# Whole apps


def make_hooks(url: str, **options: Any) -> Hooks:
    """Return an app with a database."""
    return Hooks(
        **{
            "signing_secret": SECRET,
            "database_url": url,
            "routers": [],
            "retry": ONCE,
            **options,
        }
    )


async def post(app: Any, body: bytes, *, path: str = "/") -> int:
    """Deliver a body over ASGI, signed; return the status of the answer."""
    signature = sign(body, SECRET).encode()
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"x-animica-signature", signature), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await app({**scope, "query_string": b"", "root_path": ""}, receive, send)
    status: int = sent[0]["status"]
    return status


async def deliver(app: Any, *ids: str, type: str = "order.paid", data: Any = None) -> None:
    """Deliver events, and see each acknowledged."""
    for id in ids:
        assert 204 == await post(app, make_event(type, data, id=id))


async def all_jobs(hooks: Hooks, **filters: Any) -> list[JobView]:
    """Return jobs, oldest first."""
    return [job async for job in hooks.jobs(**filters)][::-1]


async def settled(hooks: Hooks) -> None:
    """Wait until no job is to run any more."""

    async def over() -> bool:
        stats = await hooks.stats()
        return stats.available + stats.leased == 0

    await until(over)


def numbered(count: int, prefix: str = "evt") -> Iterator[str]:
    return (f"{prefix}_{n:04}" for n in range(count))


MakeBench = Callable[..., Awaitable[Bench]]
