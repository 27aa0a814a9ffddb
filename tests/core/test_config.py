"""Settings: where they are found, what is refused, and what they do not show."""

import math
from typing import Any

import pytest

from animica_hooks import RetryPolicy
from animica_hooks.config import (
    ENV_DATABASE_URL,
    ENV_SECRET,
    Settings,
    find_database_url,
    find_secrets,
)
from animica_hooks.errors import ConfigurationError

NEW, OLD = "whsec_0123456789abcdef", "whsec_fedcba9876543210"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set by whoever runs the tests."""
    monkeypatch.delenv(ENV_SECRET, raising=False)
    monkeypatch.delenv(ENV_DATABASE_URL, raising=False)


def test_the_environment_is_documented_by_these_names() -> None:
    """Deployments set these variables."""
    assert ENV_SECRET == "ANIMICA_HOOKS_SIGNING_SECRET"
    assert ENV_DATABASE_URL == "ANIMICA_HOOKS_DATABASE_URL"


def test_without_secrets_there_are_none() -> None:
    """No secret at all is no error yet: workers need none."""
    assert find_secrets(None) == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [(NEW, (NEW,)), ([NEW, OLD], (NEW, OLD)), ((OLD, NEW), (OLD, NEW))],
)
def test_secrets_that_are_given_win(
    monkeypatch: pytest.MonkeyPatch, given: Any, expected: tuple[str, ...]
) -> None:
    """An argument is taken, in its order, whatever the environment says."""
    monkeypatch.setenv(ENV_SECRET, "whsec_of_the_environment")

    assert tuple(secret.encode() for secret in expected) == find_secrets(given)


@pytest.mark.parametrize("value", [f"{NEW},{OLD}", f" {NEW} , {OLD}\n"])
def test_secrets_of_the_environment_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """During a rotation the variable has both, newest first; space round them is not theirs."""
    monkeypatch.setenv(ENV_SECRET, value)

    assert (NEW.encode(), OLD.encode()) == find_secrets(None)


@pytest.mark.parametrize("value", ["", " ", ",", f"{NEW},", "***", f"{NEW},short"])
def test_a_variable_that_is_set_wrongly_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """An empty variable is a deployment's mistake, not the wish for no secret."""
    monkeypatch.setenv(ENV_SECRET, value)

    with pytest.raises(ConfigurationError, match="signing_secret") as caught:
        find_secrets(None)

    assert "0123456789" not in str(caught.value)


def test_the_database_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over the environment, which wins over a file in the working directory."""
    assert find_database_url(None) == "sqlite:///animica-hooks.db"
    monkeypatch.setenv(ENV_DATABASE_URL, "sqlite:////var/env.db")
    assert find_database_url(None) == "sqlite:////var/env.db"
    assert find_database_url("sqlite:////var/arg.db") == "sqlite:////var/arg.db"


@pytest.mark.parametrize("given", ["", "  ", 5, b"sqlite:///x.db"])
def test_a_database_url_that_is_none_is_refused(given: Any) -> None:
    """A blank URL is told as such, with an example."""
    with pytest.raises(ConfigurationError, match=r"database_url .* sqlite:///animica-hooks.db"):
        find_database_url(given)


def test_a_blank_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable is not the default."""
    monkeypatch.setenv(ENV_DATABASE_URL, "")

    with pytest.raises(ConfigurationError, match=f"unset {ENV_DATABASE_URL}"):
        find_database_url(None)


def test_the_defaults_are_those_that_are_documented() -> None:
    """Each default, in seconds, bytes and numbers."""
    settings = Settings()

    assert (settings.tolerance, settings.max_body, settings.body_deadline) == (300, 2**20, 10)
    assert (settings.ack_deadline, settings.concurrency, settings.threads) == (3, 64, 16)
    assert (settings.timeout, settings.lease, settings.shutdown) == (60, 30, 10)
    assert (settings.retry, settings.dispatch, settings.auto_migrate) == (RetryPolicy(), True, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in (
                "tolerance",
                "body_deadline",
                "ack_deadline",
                "timeout",
                "lease",
                "shutdown",
            )
            for value in (0, -1, math.nan, math.inf, "5", True, None)
        ],
        *[
            (name, value)
            for name in ("max_body", "concurrency", "threads")
            for value in (0, -1, 1.5, math.inf, "5", True, None)
        ],
        *[("retry", value) for value in (None, 3, {"max_attempts": 3})],
    ],
)
def test_a_setting_that_is_none_is_refused(name: str, value: Any) -> None:
    """Each wrong setting is refused by its name."""
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        Settings(**{name: value})


def test_the_smallest_settings_are_taken() -> None:
    """One of each, and a fraction of a second, is enough."""
    settings = Settings(max_body=1, concurrency=1, threads=1, tolerance=0.001)

    assert (settings.max_body, settings.concurrency, settings.threads) == (1, 1, 1)
    assert settings.tolerance == 0.001


def test_settings_show_no_secret() -> None:
    """Neither the secrets nor the database's password are in their repr."""
    settings = Settings(
        secrets=(b"whsec_CANARY",), database_url="postgresql://shop:CANARY@db.example/shop"
    )

    assert "tolerance" in repr(settings)
    assert "CANARY" not in f"{settings}{settings!r}"
