"""When a failed attempt is tried again: the schedule, its bounds, and policies that are none."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from animica_hooks import RetryPolicy
from animica_hooks.errors import ConfigurationError

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10**6),
    base=st.floats(0, 1e9) | st.integers(0, 100),
    factor=st.floats(1, 1e9) | st.integers(1, 10),
    max_delay=st.floats(0, 1e9) | st.integers(0, 10**6),
    max_age=st.floats(0, 1e9),
    jitter=st.booleans(),
)
FRACTIONS = st.floats(0, 1, exclude_max=True)


def test_the_schedule_is_exact() -> None:
    """Without jitter the delays are base x factor^n, up to the longest."""
    policy = RetryPolicy(jitter=False)
    expected = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]

    assert expected == [policy.delay(failed, rand=0.5) for failed in range(1, 13)]
    assert expected == [RetryPolicy().bound(failed) for failed in range(1, 13)]


def test_the_defaults_are_those_that_are_documented() -> None:
    """Ten attempts within three days, the first retry within 5 s, none later than in an hour."""
    assert dataclasses.asdict(RetryPolicy()) == {
        "max_attempts": 10,
        "base": 5.0,
        "factor": 2.0,
        "max_delay": 3600.0,
        "max_age": 259_200.0,
        "jitter": True,
    }


@pytest.mark.parametrize("failed", [1, 2, 10, 1000])
def test_jitter_is_full(failed: int) -> None:
    """The delay is drawn between nothing and the bound: rand says where."""
    policy = RetryPolicy()

    assert policy.delay(failed, rand=0.0) == 0.0
    assert policy.delay(failed, rand=0.5) == policy.bound(failed) / 2
    assert policy.delay(failed, rand=1.0) == policy.bound(failed)


@given(POLICIES, st.integers(1, 3000), FRACTIONS)
@example(RetryPolicy(base=0), 3000, 0.5)
def test_delays_are_bounded(policy: RetryPolicy, failed: int, rand: float) -> None:
    """No delay is negative, above the bound, or above the longest; the bound never shrinks."""
    bound = policy.bound(failed)

    assert 0 <= policy.delay(failed, rand) <= bound <= policy.max_delay
    assert bound <= policy.bound(failed + 1)
    assert bound >= min(policy.base, policy.max_delay)
    if policy.base == 0:
        assert bound == 0


@pytest.mark.parametrize("failed", [1025, 10_000, 10**6])
@pytest.mark.parametrize("factor", [2, 2.0, 1e300, 1, 1.0])
def test_very_many_failures_overflow_nothing(failed: int, factor: float) -> None:
    """However often it failed, the bound is a number of seconds."""
    expected = 5 if factor == 1 else 3600

    assert RetryPolicy(factor=factor, base=5).bound(failed) == expected
    assert RetryPolicy(factor=factor, base=5.0).bound(failed) == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("max_attempts", value) for value in (0, -1, 1.5, "3", None)],
        *[
            (name, value)
            for name in ("base", "max_delay", "max_age")
            for value in (-0.1, math.nan, math.inf, "5", None)
        ],
        *[("factor", value) for value in (0.99, 0, -2, math.nan, math.inf, "2", None)],
    ],
)
def test_a_policy_that_is_none_is_refused(option: str, value: Any) -> None:
    """Each wrong option is refused by its name."""
    with pytest.raises(ConfigurationError, match=f"^{option} must be"):
        RetryPolicy(**{option: value})


def test_a_policy_is_frozen_and_by_name() -> None:
    """A policy that handlers share can not be changed, and its options are given by name."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        RetryPolicy().max_attempts = 1
    with pytest.raises(TypeError):
        RetryPolicy(3)
