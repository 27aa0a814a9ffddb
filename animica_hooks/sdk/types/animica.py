"""Answers that only Animica's API gives."""

from __future__ import annotations

from msgspec import field

from animica_hooks.sdk.model import Result


class UsageReport(Result):
    """What was used and spent, in US dollars; further fields are in ``extra``."""

    total_spent_usd: float = field(default=0.0, name="totalSpentUsd")
    count: int = 0
