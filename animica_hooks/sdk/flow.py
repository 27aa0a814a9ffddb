"""One call, without I/O: what to send, when to wait, what to make of the answer.

``exchange`` is a generator. It yields a ``Request`` to be sent, and is sent the ``Answer`` or
thrown the ``APIError`` that came of it; it yields a ``Wait`` to be waited for; it returns the
answer that is a success or raises an ``APIError``. The sync and the async client drive this same
generator, and tests drive it without a clock or a network.

Rules
1. One total deadline spans all attempts and the waits between them. A wait that would end beyond
   it is not begun: the failure at hand is raised.
2. Only what may be repeated is: reads, and requests with an idempotency key, which is the same on
   each attempt.
3. An answer whose head says success is final once its body has begun to be streamed.
4. A redirect is followed on the same origin only, never from https to http, five times at most. 307
   and 308 repeat the request, 303 asks with GET; 301 and 302 would turn a POST into a GET without
   its body, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeAlias, final

from animica_hooks.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
)
from animica_hooks.sdk import retrying

if TYPE_CHECKING:
    from animica_hooks.sdk.address import Address
    from animica_hooks.sdk.answer import Answer
    from animica_hooks.sdk.timeout import Timeout

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOSES_BODY = frozenset({301, 302})

Pairs: TypeAlias = list[tuple[str, str]]


@final
class Request:
    """One HTTP request, ready to be sent. Its repr shows neither headers nor body.

    Attributes:
        address: the origin it goes to.
        target: path and query.
        timeout: of each step.
        deadline: on the monotonic clock, by when all of it must be done; None sets no limit.
        stream: a body of success is to be left unread.
    """

    __slots__ = ("address", "body", "deadline", "headers", "method", "stream", "target", "timeout")

    def __init__(
        self,
        *,
        address: Address,
        method: str,
        target: str,
        headers: Pairs,
        body: bytes | None,
        timeout: Timeout,
        deadline: float | None,
        stream: bool,
    ) -> None:
        self.address = address
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.timeout = timeout
        self.deadline = deadline
        self.stream = stream

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.address.origin}{self.target.partition('?')[0]}>"


@final
class Wait:
    """Wait for some seconds, then go on."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


@final
class Policy:
    """How a call is carried through.

    Attributes:
        max_retries: how many more requests may follow a failed one.
        repeatable: the request may be sent again.
        first_token_timeout: seconds for a stream to begin, of each attempt.
        key: the API's key, to be taken out of errors.
    """

    __slots__ = ("clock", "first_token_timeout", "key", "max_retries", "rand", "repeatable", "wall")

    def __init__(
        self,
        *,
        max_retries: int,
        repeatable: bool,
        first_token_timeout: float | None,
        key: str | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self.max_retries = max_retries
        self.repeatable = repeatable
        self.first_token_timeout = first_token_timeout
        self.key = key
        self.clock = clock
        self.wall = wall
        self.rand = rand


Steps: TypeAlias = "Generator[Request | Wait, Answer | None, Answer]"


def exchange(request: Request, policy: Policy) -> Steps:
    """Carry one call through; see the module's docstring.

    Raises:
        APIError: what the last attempt came to.
    """
    deadline = request.deadline
    failed = 0
    while True:
        wait: float | None
        try:
            answer = yield from _attempt(request, policy, deadline)
            if 200 <= answer.status < 300:
                answer.retries = failed
                return answer
            wait, error = _judge(answer, policy)
        except (APIConnectionError, APIResponseError) as failure:
            wait, error = 0.0, failure
        failed += 1
        if wait is None or failed > policy.max_retries or not policy.repeatable:
            raise error
        wait += retrying.backoff(failed, policy.rand()) * (retrying.JITTER if wait else 1.0)
        if deadline is not None and policy.clock() + wait >= deadline:
            error.add_note("Not tried again: the wait would have passed the deadline.")
            raise error
        yield Wait(wait)


def _judge(answer: Answer, policy: Policy) -> tuple[float | None, APIError]:
    """Return the seconds to wait before another attempt, or None for no other; and the error."""
    from animica_hooks.sdk.failures import from_answer

    asked = retrying.asked_wait(answer.headers.get, wall=policy.wall())
    error = from_answer(answer, key=policy.key, retry_after=asked)
    if not retrying.is_retried(answer.status, answer.headers.get("x-should-retry")):
        return None, error
    if asked is not None and asked > retrying.MAX_WAIT_S:
        error.add_note(f"Not tried again: the API asked to wait for {asked:.0f} seconds.")
        return None, error
    return asked or 0.0, error


def _attempt(request: Request, policy: Policy, deadline: float | None) -> Steps:
    """Send the request, following redirects; the answer is of any other status.

    ``request.deadline`` becomes the attempt's own, which is earlier while a first token is awaited:
    whoever reads the stream takes it from there.
    """
    now = policy.clock() if deadline is not None or policy.first_token_timeout else 0.0
    if deadline is not None and now >= deadline:
        raise APITimeoutError("the deadline passed before the request could be sent")
    if policy.first_token_timeout:
        begun_by = now + policy.first_token_timeout
        request.deadline = begun_by if deadline is None else min(begun_by, deadline)
    followed = 0
    while True:
        answer = yield request
        assert answer is not None
        if answer.status not in _REDIRECTS or "location" not in answer.headers:
            return answer
        followed += 1
        if followed > MAX_REDIRECTS:
            raise _refused(answer, f"more than {MAX_REDIRECTS} redirects were not followed")
        request = _follow(request, answer)


def _follow(request: Request, answer: Answer) -> Request:
    """Return the request that a redirect asks for.

    Raises:
        APIStatusError: it is refused.
    """
    status = answer.status
    if status in _LOSES_BODY and request.method != "GET":
        raise _refused(answer, f"a {request.method} redirected with {status} would lose its body")
    target = request.address.redirected(request.target, answer.headers["location"])
    if target is None:
        raise _refused(answer, f"a redirect away from {request.address.origin} was not followed")
    again = status != 303
    return Request(
        address=request.address,
        method=request.method if again else "GET",
        target=target,
        headers=request.headers,
        body=request.body if again else None,
        timeout=request.timeout,
        deadline=request.deadline,
        stream=request.stream,
    )


def _refused(answer: Answer, why: str) -> APIStatusError:
    return APIStatusError(
        f"{why}; check base_url", status=answer.status, request_id=answer.request_id
    )
