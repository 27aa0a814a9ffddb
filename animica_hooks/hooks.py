"""``Hooks``: what users make one of. The composition root, and the ASGI application."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from animica_hooks import config
from animica_hooks.config import Settings, find_database_url, find_secrets
from animica_hooks.core.retention import Retention
from animica_hooks.core.retry import RetryPolicy
from animica_hooks.core.routing import Handler, Router, default_router
from animica_hooks.errors import ConfigurationError, StoreUnavailable
from animica_hooks.telemetry import Observer, logger

if TYPE_CHECKING:  # these would bring SQLAlchemy along, which takes longer than all the rest
    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from animica_hooks.admin import Admin
    from animica_hooks.receiver.answers import Answer
    from animica_hooks.runtime import Runtime
    from animica_hooks.store.views import (
        Erased,
        EventView,
        HandlerView,
        JobView,
        Replay,
        ReplayPlan,
        Stats,
    )

START_S = 1.5  # a start by a request, which imports a lot, may take longer than the ack deadline
_DEFAULT_RETENTION = Retention()

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]


class Hooks:
    """Receives webhooks: an ASGI application, and the registry of its handlers.

    Making one opens nothing. It starts with its lifespan, or else with its first request.

    Args:
        signing_secret: one, or several newest first while one is being rotated; from
            ``ANIMICA_HOOKS_SIGNING_SECRET`` (comma-separated) unless given.
        database_url: from ``ANIMICA_HOOKS_DATABASE_URL`` unless given, else
            ``sqlite:///animica-hooks.db``.
        routers: whose handlers to include; the shared one of ``from animica_hooks import on``
            unless given.
        tolerance: seconds that a signature's timestamp may be off, to either side.
        max_body: bytes that a delivery may have.
        body_deadline: seconds that a body may take to arrive.
        ack_deadline: seconds after which a delivery that is not on disk is answered 503.
        concurrency: handlers that run at once in this process.
        threads: of these, plain functions, each in a thread of its own.
        timeout: seconds that an attempt may take, unless its handler says otherwise.
        retry: when a failed attempt is tried again, unless its handler says otherwise.
        lease: seconds after which the jobs of a process that has died run elsewhere.
        shutdown: seconds that running handlers have to end at a shutdown.
        retention: how long what is done with is kept; None keeps it for ever.
        dispatch: run handlers in this process; off, it only receives.
        auto_migrate: bring the schema up to date at the start; None does so for SQLite.
        observers: told what happens, as frozen data (``animica_hooks.telemetry``).

    Raises:
        ConfigurationError: something given is wrong; the message says what to change.
    """

    def __init__(
        self,
        *,
        signing_secret: str | Sequence[str] | None = None,
        database_url: str | None = None,
        routers: Sequence[Router] | None = None,
        tolerance: float = config.TOLERANCE_S,
        max_body: int = config.MAX_BODY_BYTES,
        body_deadline: float = config.BODY_DEADLINE_S,
        ack_deadline: float = config.ACK_DEADLINE_S,
        concurrency: int = config.CONCURRENCY,
        threads: int = config.THREADS,
        timeout: float = config.TIMEOUT_S,
        retry: RetryPolicy | None = None,
        lease: float = config.LEASE_S,
        shutdown: float = config.SHUTDOWN_S,
        retention: Retention | None = _DEFAULT_RETENTION,
        dispatch: bool = True,
        auto_migrate: bool | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.settings = Settings(
            secrets=find_secrets(signing_secret),
            database_url=find_database_url(database_url),
            tolerance=tolerance,
            max_body=max_body,
            body_deadline=body_deadline,
            ack_deadline=ack_deadline,
            concurrency=concurrency,
            threads=threads,
            timeout=timeout,
            retry=retry if retry is not None else RetryPolicy(),
            lease=lease,
            shutdown=shutdown,
            retention=retention,
            dispatch=dispatch,
            auto_migrate=auto_migrate,
        )
        self._observers = _listed("observers", observers, Callable)
        self._own = Router()
        self.on = self._own.on
        included = (default_router,) if routers is None else routers
        self._routers = _listed("routers", included, Router)
        self._runtime: Runtime | None = None
        self._starting: asyncio.Task[Runtime] | None = None
        _forget_in_children(self)

    def __repr__(self) -> str:
        return f"Hooks(handlers={len(self.handlers())}, running={self._runtime is not None})"

    # Registering handlers

    def include(self, router: Router) -> None:
        """Add the handlers of a router, those registered later too."""
        if router not in self._routers:
            self._routers = (*self._routers, router)

    def handlers(self) -> tuple[Handler, ...]:
        """Return all handlers, in the order of registration.

        Raises:
            ConfigurationError: two have the same name.
        """
        merged = Router()
        for router in (self._own, *self._routers):
            merged.include(router)
        return tuple(merged.handlers)

    # The ASGI application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            runtime = self._runtime
            # A loop that is closed was another asyncio.run's. (Asking for the running loop would
            # cost a system call for each request.)
            if runtime is None or runtime.loop.is_closed():
                runtime = await self._start_lazily()
                if runtime is None:
                    from animica_hooks.receiver.answers import UNAVAILABLE

                    await UNAVAILABLE.send(send)
                    return
            assert runtime.receiver is not None
            await runtime.receiver(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise NotImplementedError(f"ASGI scope {scope['type']!r}")

    def _take(
        self,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        answer: Callable[[Answer], None],
    ) -> bool:
        """Answer a request that is all there: as a call does, but without a task to wait in.

        For ``animica-hooks serve``. False where it has to be called for.
        """
        runtime = self._runtime
        if runtime is None or runtime.receiver is None or runtime.loop.is_closed():
            return False
        return runtime.receiver.take(method, path, headers, body, answer)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002
        """Start, and drain at the end: ``FastAPI(lifespan=hooks.lifespan)``.

        Raises:
            ConfigurationError: the database, a handler or the secrets are not as they must be.
        """
        if self._runtime is not None and self._runtime.loop is asyncio.get_running_loop():
            yield  # started already; whoever did stops it
            return
        runtime = await self._start(receives=True, dispatches=self.settings.dispatch)
        try:
            yield
        finally:
            await self._stop(runtime)

    def lifespan_with(self, own: Lifespan) -> Lifespan:
        """Compose with an app's own lifespan, whose resources outlive the handlers."""

        @asynccontextmanager
        async def both(app: Any) -> AsyncIterator[Any]:
            async with own(app) as state, self.lifespan(app):
                yield state

        return both

    def routes(self, path: str) -> list[BaseRoute]:
        """Return routes for ``path``, exactly and below, to put in a list of routes.

        ``Mount`` alone would answer POST ``path`` with a redirect, which senders do not follow.
        """
        from starlette.routing import Mount, Route

        prefix = path.rstrip("/")
        if prefix and not prefix.startswith("/"):
            raise ConfigurationError(f"path must begin with '/', not {path!r}.")
        mount = Mount(prefix, app=self)
        return [Route(prefix, endpoint=_At(self, prefix)), mount] if prefix else [mount]

    def mount(self, app: Any, path: str) -> None:
        """Receive at ``path`` of a Starlette or FastAPI app, and below it.

        Raises:
            ConfigurationError: ``app`` is of another framework.
        """
        routes = getattr(getattr(app, "router", None), "routes", None)
        if not isinstance(routes, list):
            raise ConfigurationError(
                f"hooks.mount knows Starlette and FastAPI, not {type(app).__name__}: mount the "
                "Hooks object as an ASGI application, the way that framework does it."
            )
        routes.extend(self.routes(path))

    async def worker(self) -> None:
        """Run handlers in this process, without HTTP, until cancelled; then drain."""
        runtime = await self._start(receives=False, dispatches=True)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._stop(runtime)

    def _begin_draining(self) -> None:
        """Answer 503 to deliveries from now on, ahead of the end of the lifespan.

        For ``animica-hooks serve``, which ends the lifespan when its connections have ended.
        """
        if self._runtime is not None:
            self._runtime.begin_draining()

    # Looking, and replaying

    async def events(
        self,
        *,
        ids: Sequence[str] | None = None,
        type: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[EventView]:
        """Yield stored events, newest first, reading a page at a time.

        Args:
            type: a pattern.
            since, until: of their receipt, aware; the second is excluded.

        Raises:
            ConfigurationError: a filter can not be meant.
            StoreUnavailable: the database can not be read.
        """
        async with self._admin() as admin:
            async for event in admin.events(
                ids=ids, type=type, since=since, until=until, limit=limit
            ):
                yield event

    async def jobs(
        self,
        *,
        ids: Sequence[int] | None = None,
        states: Sequence[str] | None = None,
        handler: str | None = None,
        event_id: str | None = None,
        type: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[JobView]:
        """Yield jobs, newest first, reading a page at a time.

        Raises:
            ConfigurationError: a filter can not be meant.
            StoreUnavailable: the database can not be read.
        """
        async with self._admin() as admin:
            async for job in admin.jobs(
                ids=ids, states=states, handler=handler, event_id=event_id, type=type, limit=limit
            ):
                yield job

    async def stats(self) -> Stats:
        """Count what waits and what has ended badly, and what this process has seen."""
        async with self._admin() as admin:
            return await admin.stats(**self._runtime.of_process() if self._runtime else {})

    async def retry_job(self, job_id: int) -> bool:
        """Make a dead or cancelled job available again, with all its attempts before it.

        One that waits for its next attempt is due now, and keeps its count of attempts.

        Returns:
            False where it is neither: it runs, has succeeded, waits for others of its key, or is
            not there.

        Raises:
            ReplayRefused: the payload of its event has been pruned or erased.
        """
        async with self._admin() as admin:
            revived = await admin.retry_job(job_id)
        self._wake()
        return revived

    async def erase(self, event_id: str, *, endpoint: str | None = None) -> Erased:
        """Remove the payload and the headers of an event, and what its failures say of them.

        Its digest stays, so that it is still known when it is delivered again. Its jobs that are
        not done are cancelled; one that is running can not commit what it writes through its
        session.

        Args:
            endpoint: where it was received; wherever there is one of this id, unless given.
        """
        async with self._admin() as admin:
            erased = await admin.erase(event_id, endpoint=endpoint)
        self._wake()
        return erased

    async def unpark(
        self,
        *,
        handler: str | None = None,
        key: str | None = None,
        ids: Sequence[int] | None = None,
    ) -> int:
        """Let jobs that a dead one of their key has parked or blocked go on, in order.

        Args:
            handler, key: only of this handler, of this key.
            ids: only of the handlers and keys of these jobs.

        Returns:
            How many jobs go on.
        """
        async with self._admin() as admin:
            went_on = await admin.unpark(handler=handler, key=key, ids=ids)
        self._wake()
        return went_on

    async def recorded_handlers(self) -> list[HandlerView]:
        """List the handlers that the database knows of any process, by name."""
        async with self._admin() as admin:
            return await admin.handlers()

    async def pause(self, name: str) -> bool:
        """Begin no more jobs of a handler until it is resumed; False where there is none such.

        This holds for all processes (within about a second), and outlasts them. What runs goes on;
        events are received and wait.
        """
        async with self._admin() as admin:
            paused = await admin.pause(name)
        await self._refresh()
        return paused

    async def resume(self, name: str) -> bool:
        """Let a paused handler go on; False where there is none such."""
        async with self._admin() as admin:
            resumed = await admin.resume(name)
        await self._refresh()
        return resumed

    async def remove_handler(self, name: str) -> int | None:
        """Cancel a handler's jobs that nobody runs, and forget it until a process has it again.

        Returns:
            How many were cancelled; None where there is no such handler.

        Raises:
            HandlerInUse: a process that runs has it, or had it within the last minute.
        """
        async with self._admin() as admin:
            await admin.require_gone(name)
            cancelled = await admin.remove_handler(name)
        await self._refresh()
        return cancelled

    async def plan_replay(
        self,
        *,
        ids: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        states: Sequence[str] | None = None,
        handlers: Sequence[str] | None = None,
        limit: int | None = None,
        all: bool = False,
    ) -> ReplayPlan:
        """Count what a replay with these filters would do, without doing it; see ``replay``."""
        from animica_hooks.store.replay import ReplayFilters

        filters = ReplayFilters(
            ids=ids, types=types, since=since, until=until, states=states, handlers=handlers,
            limit=limit, all=all,
        )  # fmt: skip
        async with self._admin() as admin:
            return await admin.plan_replay(filters)

    async def replay(
        self,
        *,
        ids: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        states: Sequence[str] | None = None,
        handlers: Sequence[str] | None = None,
        limit: int | None = None,
        all: bool = False,
        rate: float | None = None,
        keep_keys: bool = False,
        dry_run: bool = False,
        force: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, planned: None,
    ) -> Replay:
        """Make new jobs for stored events, in the order of their receipt.

        All filters that are given must hold. Jobs that are still to run are not repeated, and
        events whose payload has been pruned or erased are skipped.

        Args:
            ids: of events.
            types: patterns.
            since, until: of their receipt, aware; the second is excluded.
            states: of the latest job of an event and a handler, for example ``["dead"]``.
            handlers: their names.
            limit: make at most so many jobs.
            all: replay everything; without it, no filter at all is refused.
            rate: jobs a second, at most, that become due.
            keep_keys: the new jobs keep the idempotency keys of those they repeat.
            dry_run: instead, run the handlers here and now, one after another, each in a
                transaction that is rolled back, and report what they did. What a handler does
                beside its ``session`` happens all the same.
            force: dry-run handlers without ``session``, too.
            on_progress: is told how many of how many jobs are done.

        Raises:
            ReplayRefused: no filter, or a dry run of handlers without ``session``.
        """
        from animica_hooks.store.replay import ReplayFilters

        filters = ReplayFilters(
            ids=ids, types=types, since=since, until=until, states=states, handlers=handlers,
            limit=limit, all=all,
        )  # fmt: skip
        if dry_run:
            from animica_hooks.dryrun import dry_replay

            async with self._running() as runtime:
                return await dry_replay(runtime, filters, force=force, on_progress=on_progress)
        async with self._admin() as admin:
            done = await admin.replay(
                filters, rate=rate, keep_keys=keep_keys, on_progress=on_progress
            )
        self._wake()
        return done

    # Starting and stopping

    async def _start(self, *, receives: bool, dispatches: bool) -> Runtime:
        from animica_hooks.runtime import Runtime

        runtime = Runtime(
            self.settings,
            self.handlers(),
            self._observers,
            receives=receives,
            dispatches=dispatches,
        )
        await runtime.start()
        self._runtime = runtime
        return runtime

    async def _stop(self, runtime: Runtime) -> None:
        try:
            await runtime.stop()
        finally:
            self._runtime = None

    async def _start_lazily(self) -> Runtime | None:
        """Start with the first request; those that come meanwhile wait for it.

        Returns:
            None where the database is not to be had in time; the next request tries again.
        """
        loop = asyncio.get_running_loop()
        if self._starting is None or self._starting.get_loop() is not loop:
            logger.warning(
                "started by a request: without hooks.lifespan nothing drains at shutdown, and what "
                "runs then is run again after its lease. Pass lifespan=hooks.lifespan to the app."
            )
            self._starting = loop.create_task(
                self._start(receives=True, dispatches=self.settings.dispatch)
            )
        starting = self._starting
        try:
            async with asyncio.timeout(max(self.settings.ack_deadline, START_S)):
                return await asyncio.shield(starting)
        except (TimeoutError, StoreUnavailable):
            return None
        finally:
            if starting.done() and self._starting is starting:
                self._starting = None

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        lifespan = self.lifespan()
        try:
            await lifespan.__aenter__()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await lifespan.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[Runtime]:
        """Yield what runs in this loop, or something that runs for the while, without HTTP."""
        if self._runtime is not None and self._runtime.loop is asyncio.get_running_loop():
            yield self._runtime
            return
        from animica_hooks.runtime import Runtime

        runtime = Runtime(
            self.settings, self.handlers(), self._observers, receives=False, dispatches=False
        )
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.stop()

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Admin]:
        async with self._running() as runtime:
            yield runtime.admin

    async def _refresh(self) -> None:
        if self._runtime is not None and self._runtime.loop is asyncio.get_running_loop():
            await self._runtime.refresh()
            self._wake()

    def _wake(self) -> None:
        if self._runtime is not None and self._runtime.worker is not None:
            self._runtime.worker.wake()


class _At:
    """The app at exactly a path, where ``Route`` leaves ``root_path`` as it is."""

    def __init__(self, app: Hooks, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        below = {**scope, "root_path": scope.get("root_path", "") + self._path}
        await self._app(below, receive, send)


def _listed(name: str, given: Any, kind: Any) -> tuple[Any, ...]:
    """Return what a list has; all of it must be of one kind."""
    listed = tuple(given) if isinstance(given, Iterable) else ()
    wrong = [each for each in listed if not isinstance(each, kind)]
    if wrong or not isinstance(given, Iterable):
        what = "Routers" if kind is Router else "functions"
        found = type(wrong[0] if wrong else given).__name__
        raise ConfigurationError(f"{name} must be a list of {what}, and was given a {found}.")
    return listed


def _forget_in_children(hooks: Hooks) -> None:
    """Make a forked child start anew: connections that two processes share give wrong results."""
    reference = weakref.ref(hooks)

    def forget() -> None:
        if (parents := reference()) is not None:
            parents._runtime = None
            parents._starting = None

    os.register_at_fork(after_in_child=forget)
