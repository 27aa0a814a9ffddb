"""What is told of what happened: one line each, nothing that a stranger can abuse."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animica_hooks.telemetry import (
    Attempted,
    Conflicted,
    Counters,
    EndedAttempt,
    Fenced,
    Observation,
    Quarantined,
    Rejected,
    SlowWriter,
    Stored,
    Telemetry,
)
from animica_hooks.telemetry.logs import LINES_APART_S, Logs, printable

HASH, OTHER_HASH = "a" * 64, "b" * 64
NASTY = "evt\n\x1b[2J\r\u2028\u0085CANARY\x00\x9b1m\\n"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def attempted(verb: str, error: str | None = None, reason: str | None = None) -> Attempted:
    """An attempt that ended, as it is told."""
    return Attempted([ended(verb, error, reason)])


def ended(verb: str, error: str | None = None, reason: str | None = None) -> EndedAttempt:
    """An attempt that ended."""
    return EndedAttempt(
        handler="shop.h",
        event_id="evt_1",
        job_id=7,
        attempt=2,
        verb=verb,
        seconds=0.25,
        error=error,
        reason=reason,
    )


def told(caplog: pytest.LogCaptureFixture, observation: Observation) -> tuple[int, str]:
    """The level and the text of the one line that an observation makes."""
    with caplog.at_level(logging.DEBUG, logger="animica_hooks"):
        Logs()(observation)
    [record] = caplog.records
    assert record.name == "animica_hooks"
    return record.levelno, record.getMessage()


@pytest.mark.parametrize(
    ("observation", "level", "ending"),
    [
        (attempted("complete"), logging.DEBUG, "has succeeded"),
        (attempted("retry"), logging.DEBUG, "is tried again"),
        (attempted("release"), logging.DEBUG, "is given back"),
        (attempted("retry", "E at a.py:7"), logging.WARNING, "is tried again: E at a.py:7"),
        (attempted("retry", "E at a.py:7", "E"), logging.WARNING, "is tried again: E at a.py:7"),
        (attempted("cancel", reason="a test"), logging.WARNING, "is cancelled: a test"),
        (
            attempted("bury", "E at a.py:7", "E (failed attempt 3 of 3)"),
            logging.ERROR,
            "is dead: E at a.py:7, E (failed attempt 3 of 3)",
        ),
    ],
)
def test_an_attempt_is_logged(
    caplog: pytest.LogCaptureFixture, observation: Attempted, level: int, ending: str
) -> None:
    """What went well is for debugging, what failed a warning, what is dead an error."""
    expected = f"attempt 2 of job 7 (shop.h, event evt_1) ended after 0.250 s; the job {ending}"

    assert (level, expected) == told(caplog, observation)


def test_when_an_attempt_is_tried_again_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """In seconds, minutes or hours."""
    for seconds, expected in {0.04: "0.0 s", 12.34: "12.3 s", 90: "1.5 min", 7200: "2.0 h"}.items():
        seen = ended("retry", "E at a.py:7")._replace(retry_in=seconds)
        caplog.clear()
        _, line = told(caplog, Attempted([seen]))
        assert line.endswith(f"; the job is tried again in {expected}: E at a.py:7")


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (Rejected("invalid_signature", "timestamp"), ["invalid_signature, timestamp"]),
        (
            Conflicted("animica", "evt_1", HASH, OTHER_HASH),
            ["evt_1", "to animica", "another body", f"first (sha256 {HASH}", OTHER_HASH],
        ),
        (
            Quarantined("animica", "it is not JSON", HASH),
            ["to animica", "quarantine: it is not JSON", HASH, "animica-hooks quarantine list"],
        ),
        (
            Stored({"new": 2}, {"ab": 2}, unkeyed={"key= raised KeyError": 2}),
            ["new job is a dead letter", "key= raised KeyError", "animica-hooks dead list"],
        ),
        (Fenced(3), ["3 marks came too late"]),
        (SlowWriter("shop.h", 2.04), ["shop.h has kept", "write slot for 2.0 s"]),
    ],
)
def test_what_somebody_should_see_is_a_warning(
    caplog: pytest.LogCaptureFixture, observation: Observation, words: list[str]
) -> None:
    """The line says what happened and where to look."""
    level, line = told(caplog, observation)

    assert level == logging.WARNING
    assert [word for word in words if word not in line] == []


def test_what_was_stored_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Deliveries that went well make no lines, not even for debugging."""
    with caplog.at_level(logging.DEBUG, logger="animica_hooks"):
        Logs()(Stored({"new": 1}, {"ab": 1}))

    assert caplog.records == []


def test_only_failures_are_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody debugs, what went well makes no lines, and what did not makes its own."""
    failed = attempted("retry", "ValueError at app.py:7")
    with caplog.at_level(logging.INFO, logger="animica_hooks"):
        for observation in (attempted("complete"), attempted("release"), failed):
            Logs()(observation)

    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    "observation",
    [
        Attempted([ended("retry", NASTY)._replace(event_id=NASTY)]),
        attempted("cancel", reason=NASTY),
        Conflicted("animica", NASTY, HASH, OTHER_HASH),
    ],
)
def test_a_line_is_one_line(caplog: pytest.LogCaptureFixture, observation: Observation) -> None:
    """Newlines and escape sequences from outside end no line and move no cursor."""
    _, line = told(caplog, observation)

    assert "CANARY" in line
    assert line.isprintable()
    assert line.isascii()
    assert len(line.splitlines()) == 1


@given(st.text(alphabet=st.characters(), max_size=400))
def test_printable_text_is_printable(text: str) -> None:
    """Any text, lone surrogates too, becomes one short line of printable ASCII."""
    line = printable(text)

    assert line.isascii()
    assert line.isprintable()
    assert len(printable(text, limit=5)) <= 5 * len("\\U0001f600")
    if text.isascii() and text.isprintable() and "\\" not in text:
        assert text[:300] == line


def test_rejections_are_rate_limited(caplog: pytest.LogCaptureFixture) -> None:
    """However many strangers knock, a reason makes one line in 10 s, with their number."""
    clock = Clock()
    logs = Logs(clock)
    mismatch = Rejected("invalid_signature", "mismatch")

    for _ in range(1000):
        logs(mismatch)
    clock.now = LINES_APART_S - 0.1
    logs(mismatch)
    logs(Rejected("invalid_signature", "timestamp"))  # another reason has lines of its own
    clock.now = LINES_APART_S
    logs(mismatch)
    logs(mismatch)
    clock.now *= 2
    logs(mismatch)
    clock.now *= 2
    logs(mismatch)

    assert [record.getMessage() for record in caplog.records] == [
        "rejected a request: invalid_signature, mismatch",
        "rejected a request: invalid_signature, timestamp",
        "rejected a request: invalid_signature, mismatch (and 1000 more since the last such line)",
        "rejected a request: invalid_signature, mismatch (and 1 more since the last such line)",
        "rejected a request: invalid_signature, mismatch",
    ]


# Telemetry and counters


def test_an_observer_that_raises_hurts_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The others are told all the same, and the log has the traceback."""
    seen: list[Observation] = []

    def broken(observation: Observation) -> None:
        raise ValueError("broken")

    Telemetry([seen.append, broken, seen.append])(Fenced(1))

    assert [Fenced(1), Fenced(1)] == seen
    [record] = caplog.records
    assert record.getMessage() == "an observer failed"
    assert record.exc_info is not None


def test_counters_count() -> None:
    """Counts are by receipt, secret, reason and verb; what is counted as a receipt is not twice."""
    counters = Counters()
    for observation in (
        Stored({"new": 2, "duplicate": 1}, {"ab": 3}, unkeyed={"key= raised KeyError": 2}),
        Stored({"new": 1, "quarantined": 1, "conflict": 1}, {"cd": 3}),
        attempted("complete"),
        attempted("complete"),
        attempted("bury", "ValueError"),
        Rejected("invalid_signature", "mismatch"),
        Fenced(2),
        SlowWriter("shop.h", 1.0),
        Conflicted("animica", "evt_1", HASH, OTHER_HASH),
        Quarantined("animica", "it is not JSON", HASH),
    ):
        counters(observation)

    assert dict(counters.counts) == {
        "deliveries.new": 3,
        "deliveries.duplicate": 1,
        "deliveries.quarantined": 1,
        "deliveries.conflict": 1,
        "verified.ab": 3,
        "verified.cd": 3,
        "attempts.complete": 2,
        "attempts.bury": 1,
        "unkeyed": 2,
        "rejected.mismatch": 1,
        "fenced": 2,
        "slow_writers": 1,
    }


def test_events_without_a_handler_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """They are counted, and named on one line of the log, of which there are not too many."""
    counters, logs = Counters(), Logs(clock=lambda: 0.0)
    with caplog.at_level(logging.INFO, logger="animica_hooks"):
        for _ in range(3):
            stored = Stored({"new": 2}, {}, {"a.b\n\x1b[31m": 2})
            counters(stored)
            logs(stored)

    assert 6 == counters.counts["no_handler"]
    [line] = caplog.messages
    assert "no handler takes events of type a.b\\n\\x1b[31m" == line
