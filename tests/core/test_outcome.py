"""How an attempt ended, and what that makes of its job."""

import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_retry import FRACTIONS, POLICIES

from animica_hooks import Discard, RetryLater, RetryPolicy
from animica_hooks.core.job import TRANSITIONS, State, Verb
from animica_hooks.core.outcome import (
    COMPLETED,
    MAX_REASON_CHARS,
    SECOND,
    Failed,
    Outcome,
    Released,
    Succeeded,
    Transition,
    decide,
    from_micros,
    to_micros,
)

NOW = 1_700_000_000 * SECOND
DAY = 24 * 3600 * SECOND
MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
TOKYO = timezone(timedelta(hours=9))
# What every database holds as an integer.
MOST = 2**63 - 1

OUTCOMES = st.one_of(
    st.just(Succeeded()),
    st.builds(Failed, st.text(max_size=600), st.booleans()),
    st.builds(Released, st.booleans()),
    st.builds(RetryLater, st.floats(allow_nan=False) | st.integers()),
    st.builds(RetryLater, st.datetimes(timezones=st.just(UTC))),
    st.builds(Discard, st.text(max_size=600)),
)


def decided(outcome: Outcome, policy: RetryPolicy | None = None, **known: Any) -> Transition:
    """What becomes of a job that was made and tried now."""
    defaults = {"failed": 0, "created_at": NOW, "now": NOW, "rand": 0.5}
    return decide(outcome, policy or RetryPolicy(), **{**defaults, **known})


def test_a_handler_that_returns_is_done() -> None:
    """Success completes the job, whatever failed before."""
    expected = Transition(Verb.COMPLETE, None, attempts=1, failed=0)

    assert expected == decided(Succeeded(), failed=9) == COMPLETED
    assert COMPLETED.state is State.SUCCEEDED


def test_a_failure_is_tried_again() -> None:
    """A failed attempt counts, and the next is due after the policy's delay."""
    expected = Transition(Verb.RETRY, NOW + 10 * SECOND, attempts=1, failed=1, reason="ValueError")

    assert expected == decided(Failed("ValueError"), failed=2)
    assert expected.state is State.AVAILABLE


def test_a_retry_is_due_at_a_time_that_a_database_can_hold() -> None:
    """Whatever the policy says: one job that can not be written would keep all from it."""
    policy = RetryPolicy(base=1e300, max_delay=1e300, max_age=1e300, jitter=False)
    decided = decide(Failed("ValueError"), policy, failed=0, created_at=0, now=NOW, rand=0.5)
    assert decided.due_at is not None
    assert NOW < decided.due_at < 2**63


def test_the_last_failure_is_the_end() -> None:
    """When the attempts are used up the job is dead, and its reason says so."""
    buried = decided(Failed("ValueError"), RetryPolicy(max_attempts=3), failed=2)

    assert Verb.BURY is buried.verb
    assert State.DEAD is buried.state
    assert buried.reason == "ValueError (failed attempt 3 of 3)"
    assert (buried.due_at, buried.attempts, buried.failed) == (None, 1, 1)
    assert decided(Failed("E"), RetryPolicy(max_attempts=3), failed=1).verb is Verb.RETRY
    assert decided(Failed("E"), RetryPolicy(max_attempts=1)).verb is Verb.BURY


def test_a_hopeless_failure_is_the_end_at_once() -> None:
    """Where another attempt can not end otherwise, there is none."""
    expected = Transition(Verb.BURY, None, attempts=1, failed=1, reason="EventMisfit")

    assert expected == decided(Failed("EventMisfit", retry=False))


def test_a_retry_beyond_the_maximal_age_is_the_end() -> None:
    """A retry that would be due too late is not planned; one that is due just in time is."""
    policy = RetryPolicy(base=10, jitter=False, max_age=10)

    assert decided(Failed("E"), policy).due_at == NOW + 10 * SECOND
    late = decided(Failed("E"), policy, created_at=NOW - 1)
    assert late.verb is Verb.BURY
    assert late.reason == "E (the next attempt would be past its max_age)"
    assert late.failed == 1


def test_an_attempt_that_was_broken_off_does_not_count() -> None:
    """After a shutdown or a crash the job is available at once, its counts as before."""
    assert decided(Released()) == Transition(Verb.RELEASE, NOW, attempts=0, failed=0)
    orphaned = decided(Released(orphaned=True), created_at=NOW - 100 * DAY)
    assert orphaned == Transition(Verb.RELEASE, NOW, attempts=0, failed=0, orphaned=True)


def test_a_discarded_job_is_cancelled() -> None:
    """Discard ends the job with its reason, and is no failure."""
    expected = Transition(Verb.CANCEL, None, attempts=1, failed=0, reason="a test payment")

    assert expected == decided(Discard("a test payment"))
    assert expected.state is State.CANCELLED
    assert decided(Discard()).reason == ""


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (0, NOW),
        (2.5, NOW + 2_500_000),
        (3600, NOW + 3600 * SECOND),
        (-5, NOW),
        (-math.inf, NOW),
        (MOMENT + timedelta(hours=1), NOW + 3600 * SECOND),
        (
            (MOMENT + timedelta(hours=1)).astimezone(TOKYO),
            NOW + 3600 * SECOND,
        ),
        (MOMENT - timedelta(hours=1), NOW - 3600 * SECOND),
    ],
)
def test_retry_later_says_when(when: float | datetime, expected: int) -> None:
    """RetryLater puts the job off, by seconds or to a moment, and is no failure."""
    put_off = decided(RetryLater(when), failed=9)

    assert put_off == Transition(Verb.RETRY, expected, attempts=1, failed=0)


@pytest.mark.parametrize("when", [math.inf, 1e300, 10**400, datetime.max.replace(tzinfo=UTC)])
def test_retry_later_does_not_outlive_the_maximal_age(when: float | datetime) -> None:
    """A job put off for ever is dead, though nothing of it has failed."""
    buried = decided(RetryLater(when))

    assert buried.verb is Verb.BURY
    assert buried.reason == "put off (the next attempt would be past its max_age)"
    assert buried.failed == 0


@pytest.mark.parametrize(
    "when", [math.nan, True, None, "5", MOMENT.replace(tzinfo=None), timedelta(1)]
)
def test_retry_later_wants_seconds_or_an_aware_datetime(when: Any) -> None:
    """Anything else is told where it is raised: a naive datetime would be of some time zone."""
    with pytest.raises(ValueError, match="RetryLater needs"):
        RetryLater(when)


def test_reasons_are_bounded_and_scrubbed() -> None:
    """What a handler says is kept in short, and without the secrets in it."""
    assert len(Discard("x" * 10_000).reason) <= MAX_REASON_CHARS
    assert "CANARY" not in Discard("no use: whsec_CANARY0123456789").reason
    assert len(decided(Failed("x" * 10_000, retry=False)).reason or "") <= MAX_REASON_CHARS
    assert Discard(7).reason == "7"


@pytest.mark.parametrize("outcome", [RetryLater(5), RetryLater(MOMENT), Discard("why")])
def test_outcomes_go_to_other_processes(outcome: RetryLater | Discard) -> None:
    """What a handler raises in a process pool arrives as it was raised."""
    arrived = pickle.loads(pickle.dumps(outcome))

    assert type(outcome) is type(arrived)
    assert vars(outcome) == vars(arrived)


@given(OUTCOMES, POLICIES, st.integers(0, 5000), st.integers(0, 10 * 365 * DAY), FRACTIONS)
@example(RetryLater(10**400), RetryPolicy(max_age=1e300), 0, 0, 0.0)
@example(Failed("E"), RetryPolicy(max_age=1e300, max_delay=1e300, base=1e9), 0, 0, 0.5)
def test_every_decision_is_within_bounds(
    outcome: Outcome, policy: RetryPolicy, failed: int, age: int, rand: float
) -> None:
    """Whatever happened: one way out of the lease, in bounds that every database holds."""
    created_at = NOW - age
    made = decide(outcome, policy, failed=failed, created_at=created_at, now=NOW, rand=rand)

    assert made.state is TRANSITIONS[State.LEASED][made.verb]
    assert (made.due_at is not None) is (made.state is State.AVAILABLE)
    assert 0 <= made.failed <= made.attempts <= 1
    assert (made.attempts == 0) is isinstance(outcome, Released)
    assert (made.failed == 1) is isinstance(outcome, Failed)
    if made.due_at is not None:
        assert -MOST <= made.due_at <= MOST
    if made.verb is Verb.RETRY:
        assert made.due_at <= created_at + int(policy.max_age * SECOND)
    if isinstance(outcome, Failed) and failed + 1 >= policy.max_attempts:
        assert made.verb is Verb.BURY
    if made.verb is Verb.RETRY and isinstance(outcome, Failed):
        assert NOW <= made.due_at <= NOW + math.ceil(policy.max_delay * SECOND)


@given(POLICIES, st.lists(st.tuples(st.sampled_from("FFFRLDS"), FRACTIONS), max_size=60))
def test_a_job_ends(policy: RetryPolicy, attempts: list[tuple[str, float]]) -> None:
    """Through any sequence of outcomes the counts add up, and no end is passed."""
    state, now, failed, counted = State.AVAILABLE, NOW, 0, 0
    kinds: dict[str, Outcome] = {
        "F": Failed("E"),
        "R": Released(),
        "L": RetryLater(60),
        "D": Discard(""),
        "S": Succeeded(),
    }
    for kind, rand in attempts:
        made = decide(kinds[kind], policy, failed=failed, created_at=NOW, now=now, rand=rand)
        state, failed, counted = made.state, failed + made.failed, counted + made.attempts
        if state.final:
            break
        now = max(now, made.due_at)
        assert now <= NOW + int(policy.max_age * SECOND)

    assert failed <= min(counted, policy.max_attempts)
    assert state.final or failed < policy.max_attempts
    if failed == policy.max_attempts:
        assert state is State.DEAD


@given(st.integers(1, 50), st.booleans())
def test_what_always_fails_is_dead_after_its_attempts(most: int, jitter: bool) -> None:
    """A handler that always fails has exactly its maximum of attempts."""
    policy = RetryPolicy(max_attempts=most, max_age=1e9, jitter=jitter)
    failed, now = 0, NOW

    while (made := decided(Failed("E"), policy, failed=failed, now=now)).verb is Verb.RETRY:
        failed, now = failed + 1, made.due_at

    assert most == failed + made.failed


MICROS = st.integers(-62_135_596_800 * SECOND, 253_402_300_800 * SECOND - 1)


@given(MICROS)
@example(-1)
@example(0)
def test_times_survive_the_way_to_the_database_and_back(micros: int) -> None:
    """Microseconds and aware datetimes stand for each other, exactly, before 1970 too."""
    moment = from_micros(micros)

    assert moment.tzinfo is UTC
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros) == moment
    assert micros == to_micros(moment)


def test_a_naive_time_has_no_microseconds() -> None:
    """A datetime without a time zone is a mistake of ours, not a time somewhere."""
    with pytest.raises(TypeError):
        to_micros(MOMENT.replace(tzinfo=None))


def test_a_job_that_crashed_alone_is_tried_again_alone() -> None:
    """Only a retry keeps it apart: what is dead is with nobody."""
    crashed = Failed("crashed", orphaned=True)
    assert decided(crashed).orphaned
    assert not decided(crashed, policy=RetryPolicy(max_attempts=1)).orphaned
    assert not decided(Failed("ValueError")).orphaned
