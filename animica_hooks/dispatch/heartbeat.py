"""Prolongs the leases of a process from a thread of its own, which no handler can block.

Rule 1: the thread uses nothing that the event loop has to give: no lock, no connection.
Rule 2: a process whose loop does not come round keeps what it has not begun only as long as one of
        the handlers that run may be what blocks it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from animica_hooks.core.outcome import SECOND
from animica_hooks.errors import StoreError
from animica_hooks.telemetry import logger
from animica_hooks.threads import DaemonThreads

BEATS_PER_LEASE = 3
_AGAIN_PER_LEASE = 30  # after a failure
_STOP_S = 1.0


class PutsOff(Protocol):
    """What the heartbeat needs of a store."""

    lease: int

    def renew(self, leases: Sequence[tuple[int, int]]) -> None: ...


class HoldsLeases(Protocol):
    """What it needs of those who hold the jobs. Asked in its thread."""

    def leases(self, *, blocked: bool = False) -> list[tuple[int, int]]: ...


class Heartbeat:
    """Beats for one event loop, between ``start`` and ``stop``."""

    def __init__(self, store: PutsOff, holder: HoldsLeases) -> None:
        self._store = store
        self._holder = holder
        self._lease_s = store.lease / SECOND
        self._loop = asyncio.get_running_loop()
        self._threads = DaemonThreads("animica-hooks-heartbeat")
        self._wake = threading.Event()
        self._stopping = False
        self._answered = time.monotonic()

    def start(self) -> None:
        self._ended = self._threads.submit(self._run)

    def wake(self) -> None:
        """Beat now."""
        self._wake.set()

    async def stop(self) -> None:
        """End, and wait for that; but not for a database that does not answer."""
        self._stopping = True
        self._wake.set()
        await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=_STOP_S)
        self._threads.close()

    def _run(self) -> None:
        pause = self._lease_s / BEATS_PER_LEASE
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopping or self._loop.is_closed():
                return
            pause = self._lease_s / (BEATS_PER_LEASE if self._beat() else _AGAIN_PER_LEASE)

    def _beat(self) -> bool:
        """Prolong what is held; tell whether that succeeded."""
        try:
            blocked = time.monotonic() - self._answered > self._lease_s
            if leases := self._holder.leases(blocked=blocked):
                self._store.renew(leases)
            self._loop.call_soon_threadsafe(self._answer)
        except StoreError as error:
            logger.warning("leases could not be prolonged: %s", error)
        except BaseException:  # noqa: BLE001 - whatever it was, the thread has to live
            logger.exception("leases could not be prolonged")
        else:
            return True
        return False

    def _answer(self) -> None:
        self._answered = time.monotonic()
