"""Answers that only the Andy API gives; its document names the pool's hosts and their load."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from animica_hooks.sdk.model import Model, Result


class PoolHost(Model):
    """A host of the pool; ``load`` is its own measure, ``models`` is what it serves."""

    host_id: str = ""
    status: str = ""
    load: float = 0.0
    models: list[Any] = field(default_factory=list)


class PoolModel(Model):
    """A model that hosts of the pool serve."""

    name: str = ""
    available_hosts: int = 0


class PoolStatusReport(Result):
    """The pool's hosts, their load, and the models; further fields are in ``extra``."""

    total_hosts: int = 0
    active_hosts: int = 0
    total_models: int = 0
    hosts: list[PoolHost] = field(default_factory=list)
    models: list[PoolModel] = field(default_factory=list)

    _inner: ClassVar[tuple[str, ...]] = ("hosts", "models")
