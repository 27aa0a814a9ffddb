"""A started ``Hooks``: the parts, wired together, in one event loop of one process."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import socket
from collections.abc import Sequence

from animica_hooks.admin import Admin
from animica_hooks.config import ENV_SECRET, Settings
from animica_hooks.core.routing import Handler, Recorded, RoutingTable
from animica_hooks.core.signature import Verifier
from animica_hooks.dispatch.runner import Prepared, Runner, prepare
from animica_hooks.dispatch.worker import Worker
from animica_hooks.errors import ConfigurationError, StoreError
from animica_hooks.receiver.app import Receiver
from animica_hooks.store import inbox
from animica_hooks.store.base import Store
from animica_hooks.store.committer import Committer
from animica_hooks.store.connect import make_store
from animica_hooks.store.prune import Pruner
from animica_hooks.telemetry import Counters, Observer, Telemetry, logger
from animica_hooks.telemetry.logs import Logs
from animica_hooks.threads import DaemonThreads

REFRESH_S = 1.0  # between two looks at the handlers that the database knows
RENEW_S = 20.0  # between two notes there that this process has its handlers


def owner_name() -> str:
    """Return a name for this process that no other has, for the leases it holds."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(3)}"


def open_store(settings: Settings) -> Store:
    """Return the store of the settings' database, not opened yet."""
    return make_store(
        settings.database_url,
        owner=owner_name(),
        lease_s=settings.lease,
        handlers=min(settings.concurrency, 32),
    )


class Runtime:
    """Everything that lives as long as the app runs.

    Args:
        receives: take deliveries; needs a signing secret.
        dispatches: run handlers.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Sequence[Handler],
        observers: Sequence[Observer],
        *,
        receives: bool,
        dispatches: bool,
    ) -> None:
        self._settings = settings
        self._handlers = tuple(handlers)
        self._counters = Counters()
        self._telemetry = Telemetry([self._counters, Logs(), *observers])
        self._receives = receives
        self._dispatches = dispatches
        self._threads = DaemonThreads("animica-hooks-handler")
        self._draining = False
        self._ids: dict[str, int] = {}
        self._recorded: list[Recorded] = []
        self._warned_of: set[str] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self.loop = asyncio.get_running_loop()
        self.store = open_store(settings)
        self.worker: Worker | None = None
        self.receiver: Receiver | None = None
        self._pruner: Pruner | None = None

    async def start(self) -> None:
        """Open the database and begin.

        Raises:
            ConfigurationError: the database, a handler or the secrets are not as they must be.
        """
        settings = self._settings
        try:
            if self._receives and not settings.secrets:
                raise ConfigurationError(
                    f"there is no signing secret: set {ENV_SECRET}, or pass signing_secret to "
                    "Hooks."
                )
            migrate = settings.auto_migrate
            await self.store.open(
                migrate=self.store.migrates_itself if migrate is None else migrate
            )
            await self._start_parts()
        except BaseException:
            await self.store.close()
            raise

    async def _start_parts(self) -> None:
        settings = self._settings
        if self._receives or self._dispatches:
            async with self.store.write("registration") as connection:
                now = self.store.now()
                self._ids = await inbox.register_handlers(connection, self._handlers, now)
                recorded = await inbox.recorded_handlers(connection, now)
            self._recorded = self._by_own_names(recorded)
            self.routes = RoutingTable(self._handlers, self._recorded)
            await self._warn_of_gone()
            own = [record.name for record in recorded if record.id in self._ids.values()]
        else:
            own = [handler.name for handler in self._handlers]
        self.admin = Admin(self.store, own)
        if self._dispatches:
            self.worker = Worker(
                self.store,
                self._telemetry,
                Runner(self.store, self._threads),
                {self._ids[name]: prepared for name, prepared in self.prepared().items()},
                concurrency=settings.concurrency,
                threads=settings.threads,
            )
        self.committer = Committer(
            self.store,
            self._telemetry,
            room=self.worker.room if self.worker else lambda: 0,
            on_leased=self.worker.accept if self.worker else lambda jobs, waiting: None,
            on_due=self.worker.wake_at if self.worker else lambda due_at: None,
            ack_deadline=settings.ack_deadline,
        )
        if self._receives:
            self.receiver = Receiver(
                self.committer,
                self._telemetry,
                verifier=Verifier(settings.secrets, tolerance_s=settings.tolerance),
                route=self.routes.match,
                not_ready=self._not_ready,
                max_body=settings.max_body,
                body_deadline=settings.body_deadline,
            )
        if (self._receives or self._dispatches) and settings.retention is not None:
            self._pruner = Pruner(self.store, settings.retention)
            self._pruner.start()
        self.store.start_maintenance(self.worker.wake if self.worker else None)
        if self.worker:
            self.worker.start(self.committer)
        if self._ids or self._receives:
            self._refreshing = asyncio.create_task(
                self._refresh_for_ever(), name="animica-hooks handlers"
            )

    async def refresh(self) -> None:
        """Take what the database knows of handlers: new ones of other processes, and pauses."""
        async with self.store.read() as connection:
            own = list(self._ids.values())
            recorded = self._by_own_names(
                await inbox.recorded_handlers(connection, self.store.now(), own)
            )
        if recorded != self._recorded:
            self._recorded = recorded
            self.routes.update(recorded)
        if self.worker and (paused := {record.id for record in recorded if record.paused}):
            self.worker.slots.give_back(paused)

    def _by_own_names(self, recorded: Sequence[Recorded]) -> list[Recorded]:
        """Call this process's handlers as it does: a newer release may have renamed some."""
        names = {id: name for name, id in self._ids.items()}
        return [record._replace(name=names.get(record.id, record.name)) for record in recorded]

    async def _refresh_for_ever(self) -> None:
        renew_at = self.loop.time() + RENEW_S
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
                if self.loop.time() >= renew_at:
                    async with self.store.write("registration") as connection:
                        ids = list(self._ids.values())
                        await inbox.renew_handlers(connection, ids, self.store.now())
                    await self._warn_of_gone()
                    renew_at = self.loop.time() + RENEW_S
            except StoreError as error:
                logger.warning("the handlers could not be looked up: %s", error)
            except Exception:  # noqa: BLE001 - a bug, but pauses have to be seen
                logger.exception("the handlers could not be looked up")

    async def _warn_of_gone(self) -> None:
        """Warn, once of each, of handlers of other processes that no process has any more."""
        async with self.store.read() as connection:
            besides = (*self._ids, *self._warned_of)
            gone = await inbox.gone_handlers(connection, self.store.now(), besides)
        for name, waiting in gone:
            self._warned_of.add(name)
            logger.warning(
                "no process that runs has the handler %s, and its jobs wait (%d so far): if it "
                "was renamed, write aliases=[%r] where it is now; if it was deleted, run "
                "'animica-hooks handlers remove %s'; else start a process that has it.",
                name,
                waiting,
                name,
                shlex.quote(name),
            )

    def prepared(self) -> dict[str, Prepared]:
        """Return the handlers, ready to be called, by name."""
        settings = self._settings
        return {
            handler.name: prepare(handler, retry=settings.retry, timeout=settings.timeout)
            for handler in self._handlers
        }

    @property
    def threads(self) -> DaemonThreads:
        return self._threads

    async def stop(self) -> None:
        """Drain: refuse deliveries, let handlers end or break them off, close the database."""
        self.begin_draining()
        if self._pruner:
            await self._pruner.close()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        if self.worker:
            await self.worker.drain(self._settings.shutdown)
        self._threads.close()
        await self.committer.close()
        await self.store.close()

    def begin_draining(self) -> None:
        """Answer 503 from now on; ``stop`` does the rest."""
        self._draining = True
        self.committer.refuse()

    def of_process(self) -> dict[str, object]:
        """Return what only this process knows, for ``Stats``."""
        slots = self.worker.slots if self.worker else None
        return {
            "held": slots.held if slots else 0,
            "stuck_threads": slots.stuck_threads if slots else 0,
            "counts": dict(self._counters.counts),
        }

    def _not_ready(self) -> list[str]:
        reasons = []
        if self._draining:
            reasons.append("draining")
        if self.committer.failing:
            reasons.append("database")
        return reasons
