"""One call without I/O: attempts, waits, redirects and errors, by a clock that the test sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import pytest

from animica_hooks import errors
from animica_hooks.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from animica_hooks.sdk import ratelimit, retrying, timeout
from animica_hooks.sdk.address import Address
from animica_hooks.sdk.answer import Answer, Headers
from animica_hooks.sdk.flow import Policy, Request, Steps, Wait, exchange

WALL = 1_800_000_000.0
Outcome = Answer | APIError


class Driven:
    """A call that the test answers itself."""

    def __init__(
        self,
        *outcomes: Outcome,
        max_retries: int = 2,
        repeatable: bool = True,
        deadline: float | None = None,
        first_token: float | None = None,
        rand: float = 0.0,
        took: float = 0.0,
        overslept: float = 0.0,
        method: str = "POST",
    ) -> None:
        self.now = 100.0
        self.requests: list[Request] = []
        self.waits: list[float] = []
        self.deadlines: list[float | None] = []
        self._outcomes = list(outcomes)
        self._took = took
        self._overslept = overslept
        request = Request(
            address=Address("https://api.example.com/v1"),
            method=method,
            target="/v1/chat",
            headers=[("Idempotency-Key", "k1")],
            body=b"{}" if method == "POST" else None,
            timeout=timeout.DEFAULT,
            deadline=None if deadline is None else self.now + deadline,
            stream=first_token is not None,
        )
        policy = Policy(
            max_retries=max_retries,
            repeatable=repeatable,
            first_token_timeout=first_token,
            key="anm_live_CANARY",
            clock=lambda: self.now,
            wall=lambda: WALL,
            rand=lambda: rand,
        )
        self._steps: Steps = exchange(request, policy)

    def run(self) -> Answer:
        """Drive the call to its end."""
        advance: Callable[[], Request | Wait] = lambda: next(self._steps)  # noqa: E731
        try:
            while True:
                step = advance()
                if isinstance(step, Wait):
                    self.waits.append(step.seconds)
                    self.now += step.seconds + self._overslept
                    advance = lambda: self._steps.send(None)  # noqa: E731
                    continue
                self.requests.append(step)
                self.deadlines.append(step.deadline)
                self.now += self._took
                outcome = self._outcomes.pop(0)
                if isinstance(outcome, APIError):
                    advance = lambda outcome=outcome: self._steps.throw(outcome)  # noqa: E731
                else:
                    advance = lambda outcome=outcome: self._steps.send(outcome)  # noqa: E731
        except StopIteration as done:
            answer: Answer = done.value
            return answer


def answer(status: int, content: bytes = b"{}", **headers: str) -> Answer:
    """An answer with these headers."""
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Answer(status, Headers(pairs), content)


OK = answer(200)


def test_a_success_is_returned_at_once() -> None:
    """One request, no wait."""
    driven = Driven(OK)

    assert OK is driven.run()
    assert ([], 1, 0) == (driven.waits, len(driven.requests), OK.retries)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    """These statuses are asked for again, with waits that grow, and with the same request."""
    driven = Driven(answer(status), answer(status), answer(200))
    found = driven.run()

    assert [0.5, 1.0] == driven.waits
    assert 2 == found.retries
    assert driven.requests[0] is driven.requests[1] is driven.requests[2]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 418])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    """These statuses are raised at once."""
    driven = Driven(answer(status))
    with pytest.raises(APIStatusError) as caught:
        driven.run()

    assert (status, []) == (caught.value.status, driven.waits)


@pytest.mark.parametrize("failure", [APIConnectionError("x"), APITimeoutError("x")])
def test_connections_that_fail_are_tried_again(failure: APIError) -> None:
    """A request that brought no answer is sent again; the last failure is raised as it is."""
    driven = Driven(failure, failure, failure)
    with pytest.raises(type(failure)) as caught:
        driven.run()

    assert caught.value is failure
    assert 3 == len(driven.requests)


def test_what_may_not_be_repeated_is_not() -> None:
    """A request without an idempotency key is sent once, whatever becomes of it."""
    for outcome in (APIConnectionError("x"), answer(503), answer(200, x="1")):
        driven = Driven(outcome, repeatable=False)
        if isinstance(outcome, Answer) and outcome.status == 200:
            driven.run()
        else:
            with pytest.raises(APIError):
                driven.run()
        assert 1 == len(driven.requests)


def test_the_number_of_retries_is_kept() -> None:
    """No retries, no second request."""
    driven = Driven(answer(503), max_retries=0)
    with pytest.raises(errors.InternalServerError):
        driven.run()

    assert ([], 1) == (driven.waits, len(driven.requests))


def test_backoff_grows_to_its_bound_and_is_spread() -> None:
    """Half a second, doubled, eight at most; a quarter of it is drawn by lot."""
    assert [0.5, 1, 2, 4, 8, 8] == [retrying.backoff(n, 0.0) for n in range(1, 7)]
    assert 8 * 0.75 < retrying.backoff(1000, 0.999) < 8 * 0.76


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "3"}, 3),
        ({"retry_after": "2.5"}, 2.5),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": formatdate(WALL + 7, usegmt=True)}, 7),
        (
            {
                "retry_after": formatdate(WALL + 3607, usegmt=True),
                "date": formatdate(WALL + 3600, usegmt=True),
            },
            7,
        ),
        ({"retry_after": "60"}, 60),
    ],
)
def test_it_is_never_earlier_than_asked(headers: dict[str, str], wait: float) -> None:
    """Seconds, milliseconds, or a date, read against the server's own clock."""
    for rand in (0.0, 0.99):
        driven = Driven(answer(429, **headers), OK, rand=rand)
        driven.run()

        assert wait <= driven.waits[0] <= wait + 1


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that is hours away from UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%c"])
def test_dates_of_all_forms_are_in_utc(form: str) -> None:
    """HTTP's three: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7."""
    asked = {"retry-after": time.strftime(form, time.gmtime(WALL + 7))}

    assert 7 == retrying.asked_wait(asked.get, wall=WALL)


@pytest.mark.parametrize("headers", [{"retry-after": "2"}, {"retry-after-ms": "2000"}])
def test_limits_say_how_long_to_wait(headers: dict[str, str]) -> None:
    """In each of the forms that retries are made after."""
    dated = {
        "retry-after": formatdate(WALL + 2, usegmt=True),
        "date": formatdate(WALL, usegmt=True),
    }

    assert 2 == ratelimit.read(headers).retry_after == ratelimit.read(dated).retry_after


@pytest.mark.parametrize("digits", [15, 16, 300])
def test_no_number_is_too_long_to_be_a_wait(digits: int) -> None:
    """Who asks for more than can be waited for gets no request before that, however it is said."""
    driven = Driven(answer(429, retry_after="9" * digits), OK)
    with pytest.raises(errors.RateLimitError) as caught:
        driven.run()

    assert (float("9" * digits), []) == (caught.value.retry_after, driven.waits)


@pytest.mark.parametrize(
    "value",
    ["-1", "soon", "", "nan", "inf", formatdate(WALL - 3600, usegmt=True), "Tue, 99 Foo", "1e3"],
)
def test_nonsense_is_not_waited_for(value: str) -> None:
    """Negative, past, or no number at all: the usual wait."""
    driven = Driven(answer(503, retry_after=value), OK)
    driven.run()

    assert [0.5] == driven.waits


@pytest.mark.parametrize("value", ["61", "1000000000", formatdate(WALL + 3600, usegmt=True)])
def test_who_is_asked_to_wait_long_is_told(value: str) -> None:
    """Beyond a minute nobody waits: the error has what was asked for."""
    driven = Driven(answer(429, retry_after=value))
    with pytest.raises(errors.RateLimitError) as caught:
        driven.run()

    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 60
    assert "asked to wait" in caught.value.__notes__[0]


def test_the_server_decides_over_the_status() -> None:
    """``x-should-retry`` has the last word, both ways."""
    with pytest.raises(errors.InternalServerError):
        Driven(answer(503, x_should_retry="false")).run()
    driven = Driven(answer(400, x_should_retry="true"), OK)
    driven.run()

    assert 2 == len(driven.requests)


def test_one_deadline_spans_all_attempts() -> None:
    """A wait that would end beyond the deadline is not begun: the failure at hand is raised."""
    driven = Driven(answer(503), answer(503), deadline=1.2)
    with pytest.raises(errors.InternalServerError) as caught:
        driven.run()

    assert ([0.5], 2) == (driven.waits, len(driven.requests))
    assert "deadline" in caught.value.__notes__[0]
    assert [101.2, 101.2] == driven.deadlines


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    """No request is begun after the deadline."""
    driven = Driven(deadline=-1.0)
    with pytest.raises(APITimeoutError):
        driven.run()

    assert [] == driven.requests


def test_the_first_token_has_a_time_of_its_own_in_each_attempt() -> None:
    """It counts from the attempt's begin, and never beyond the call's deadline."""
    driven = Driven(answer(503), answer(503), OK, first_token=5.0, deadline=8.0, took=2.0)
    driven.run()

    assert [105.0, 107.5, 108.0] == driven.deadlines


def test_a_wait_that_ends_too_late_sends_nothing_more() -> None:
    """A sleep may take longer than asked: the deadline is looked at once more after it."""
    driven = Driven(answer(503), deadline=1.0, overslept=0.6)
    with pytest.raises(APITimeoutError, match="deadline"):
        driven.run()

    assert 1 == len(driven.requests)


REDIRECTS = [301, 302, 303, 307, 308]


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_on_the_same_origin_repeats_the_request(status: int) -> None:
    """Method, body and headers stay; it is no retry."""
    driven = Driven(answer(status, location="/v2/chat?x=1"), OK, max_retries=0)
    driven.run()

    assert ["/v1/chat", "/v2/chat?x=1"] == [request.target for request in driven.requests]
    assert ("POST", b"{}") == (driven.requests[1].method, driven.requests[1].body)


def test_303_asks_with_get() -> None:
    """What was posted is looked at elsewhere."""
    driven = Driven(answer(303, location="https://api.example.com:443/seen"), OK)
    driven.run()

    assert ("GET", None, "/seen") == (
        driven.requests[1].method,
        driven.requests[1].body,
        driven.requests[1].target,
    )


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirected_get_is_followed(status: int) -> None:
    """Whatever the status, and relative to what was asked."""
    driven = Driven(answer(status, location="other"), OK, method="GET")
    driven.run()

    assert ("GET", "/v1/other") == (driven.requests[1].method, driven.requests[1].target)


@pytest.mark.parametrize("status", [301, 302])
def test_a_post_does_not_lose_its_body(status: int) -> None:
    """301 and 302 would turn it into a GET: refused, and told."""
    driven = Driven(answer(status, location="/v2/chat"))
    with pytest.raises(APIStatusError, match="would lose its body") as caught:
        driven.run()

    assert (status, 1) == (caught.value.status, len(driven.requests))


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example.com/v1/chat",
        "http://api.example.com/v1/chat",
        "https://api.example.com:8443/v1/chat",
        "//evil.example.com/",
        "https://api.example.com@evil.example.com/",
        "https://user:pass@api.example.com/",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "https://api.example.com:99999/",
        "https://[::1",
        "/a b\x00",
        "\\\\evil.example.com\\x",
    ],
)
def test_no_redirect_leads_elsewhere(status: int, location: str) -> None:
    """Another host, port or scheme, or what is not clear, is not followed: no key goes there."""
    driven = Driven(answer(status, location=location), method="GET")
    if location.startswith("\\\\"):
        # A path with backslashes, on the same origin.
        driven = Driven(answer(status, location=location), OK, method="GET")
        driven.run()
        assert driven.requests[1].address is driven.requests[0].address
        return
    with pytest.raises(APIStatusError):
        driven.run()

    assert 1 == len(driven.requests)


def test_redirects_end() -> None:
    """Five are followed; a circle is not."""
    driven = Driven(*[answer(307, location="/v1/chat")] * 6)
    with pytest.raises(APIStatusError, match="more than 5"):
        driven.run()

    assert 6 == len(driven.requests)
