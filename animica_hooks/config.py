"""Settings: every default, with its unit, in one place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from animica_hooks.core.retention import Retention
from animica_hooks.core.retry import RetryPolicy
from animica_hooks.core.routing import check_seconds
from animica_hooks.core.signature import encode_secrets
from animica_hooks.errors import ConfigurationError

TOLERANCE_S = 300.0
DATABASE_URL = "sqlite:///animica-hooks.db"
MAX_BODY_BYTES = 1024 * 1024
BODY_DEADLINE_S = 10.0
ACK_DEADLINE_S = 3.0
CONCURRENCY = 64
THREADS = 16
TIMEOUT_S = 60.0
LEASE_S = 30.0
SHUTDOWN_S = 10.0

ENV_SECRET = "ANIMICA_HOOKS_SIGNING_SECRET"  # noqa: S105 - a name, not a secret
ENV_DATABASE_URL = "ANIMICA_HOOKS_DATABASE_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a ``Hooks`` was told. See ``Hooks`` for what each means."""

    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    database_url: str = field(default=DATABASE_URL, repr=False)
    tolerance: float = TOLERANCE_S
    max_body: int = MAX_BODY_BYTES
    body_deadline: float = BODY_DEADLINE_S
    ack_deadline: float = ACK_DEADLINE_S
    concurrency: int = CONCURRENCY
    threads: int = THREADS
    timeout: float = TIMEOUT_S
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    lease: float = LEASE_S
    shutdown: float = SHUTDOWN_S
    retention: Retention | None = field(default_factory=Retention)
    dispatch: bool = True
    auto_migrate: bool | None = None

    def __post_init__(self) -> None:
        for name in ("tolerance", "body_deadline", "ack_deadline", "timeout", "lease", "shutdown"):
            if getattr(self, name) is None:
                raise ConfigurationError(f"{name} must be seconds above 0, not None.")
            check_seconds(name, getattr(self, name))
        for name in ("max_body", "concurrency", "threads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number above 0, not {value!r}.")
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigurationError(
                f"retry must be a RetryPolicy, not {type(self.retry).__name__}."
            )
        if not isinstance(self.retention, Retention | None):
            raise ConfigurationError(
                f"retention must be a Retention or None, not {type(self.retention).__name__}."
            )


def find_secrets(given: str | Sequence[str] | None) -> tuple[bytes, ...]:
    """Return the signing secrets as given, else from the environment; empty where there is none.

    Raises:
        ConfigurationError: one is blank, masked or short.
    """
    if given is None:
        found = os.environ.get(ENV_SECRET)
        if found is None:
            return ()
        given = [secret.strip() for secret in found.split(",")]
    return encode_secrets(given)


def find_database_url(given: str | None) -> str:
    """Return the database URL as given, else from the environment, else the default."""
    url = given if given is not None else os.environ.get(ENV_DATABASE_URL, DATABASE_URL)
    if not isinstance(url, str) or not url.strip():
        raise ConfigurationError(
            f"database_url is blank: give one such as {DATABASE_URL}, or unset {ENV_DATABASE_URL}."
        )
    return url
