"""Handlers in a module whose annotations are strings."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import animica_hooks
from animica_hooks import Event, Job
from animica_hooks import Event as Happening

if TYPE_CHECKING:
    from decimal import Decimal

S = TypeVar("S")


@dataclass
class Payment:
    """What a payment's event has as data."""

    amount: int


async def typed(session: AsyncSession, job: Job, event: Event[Payment]) -> None: ...


def by_annotation(s: Session, j: animica_hooks.Job, e: animica_hooks.Event[Payment]) -> None: ...


def quoted(e: "Event[Payment]") -> None: ...  # noqa: UP037 - quoted twice


def renamed(it: Happening[Payment]) -> None: ...


def optional(e: Event[Payment] | None = None) -> None: ...


def annotated(e: Annotated[Event[Payment], "more"]) -> None: ...


def plain(e: Event) -> None: ...


def untyped(e: Event[Any]) -> None: ...


def generic(e: Event[S]) -> None: ...


def only_for_checkers(e: Event[Decimal]) -> None: ...


def local() -> Any:
    """Return a handler whose type only this function knows."""

    @dataclass
    class Hidden:
        amount: int

    def handler(e: Event[Hidden]) -> None: ...

    return handler


def plain_beside_for_checkers(e: Event, note: Decimal | None = None) -> None: ...


class Shop:
    """Handlers that are methods, and an object that is one."""

    async def method(self, event: Event[Payment]) -> None: ...

    async def __call__(self, event: Event[Payment], session: AsyncSession) -> None: ...


partial = functools.partial(typed, job=None)
