"""Jobs that wait for a slot: each handler's in order, the handlers in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from animica_hooks.store.records import LeasedJob


class FairQueue:
    """Keeps no handler waiting for the many jobs of another."""

    def __init__(self) -> None:
        self._by_handler: dict[int, deque[LeasedJob]] = {}

    def __iter__(self) -> Iterator[LeasedJob]:
        return (job for waiting in self._by_handler.values() for job in waiting)

    def __len__(self) -> int:
        return sum(map(len, self._by_handler.values()))

    def __bool__(self) -> bool:
        return bool(self._by_handler)

    def add(self, job: LeasedJob) -> None:
        self._by_handler.setdefault(job.handler_id, deque()).append(job)

    def first(self, may_begin: Callable[[int], bool]) -> int | None:
        """Return the handler whose turn it is, of those that may begin a job."""
        return next(filter(may_begin, self._by_handler), None)

    def pop(self, handler_id: int) -> LeasedJob:
        """Take a handler's next job; its next turn comes after the others'."""
        waiting = self._by_handler[handler_id]
        job = waiting.popleft()
        if not waiting:
            del self._by_handler[handler_id]
        elif len(self._by_handler) > 1:
            self._by_handler[handler_id] = self._by_handler.pop(handler_id)
        return job

    def count(self, handler_id: int) -> int:
        return len(self._by_handler.get(handler_id, ()))

    def take(self, handler_id: int) -> list[LeasedJob]:
        """Take all the jobs of a handler."""
        return list(self._by_handler.pop(handler_id, ()))

    def take_all(self) -> list[LeasedJob]:
        taken = list(self)
        self._by_handler.clear()
        return taken
