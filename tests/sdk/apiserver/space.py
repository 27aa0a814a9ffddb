"""A test's own part of the server: its base URLs, its script, and what it was sent."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from apiserver.answer import Answer, Refusal
from apiserver.providers import PROVIDERS, Provider, Quota
from apiserver.steps import Step, normal

if TYPE_CHECKING:
    from apiserver.running import Connection

# For a signal that never comes: long enough for a busy machine.
PATIENCE_SECONDS = 20


@dataclass(slots=True, eq=False)
class Recorded:
    """A request as it arrived, and what became of it."""

    provider: str
    method: str
    # Below the provider's prefix: "/v1/chat/completions".
    path: str
    # Before percent-decoding, with the space's token.
    raw_path: str
    query: str
    headers: list[tuple[str, str]]
    # The number of its connection, counted over the whole server; scheme and host as it gave them.
    connection: int
    origin: str
    # Seconds on the monotonic clock when its headers had arrived.
    arrived: float = field(default_factory=time.monotonic)
    body: bytes = b""
    # How it ended, once it has: answered whole, or broken off, by the client or by the script.
    done: bool = False
    broken_off: bool = False

    def header(self, name: str, default: str | None = None) -> str:
        """Return a header's value; without one, the default or a KeyError."""
        for key, value in self.headers:
            if key == name.lower():
                return value
        if default is None:
            raise KeyError(name)
        return default

    def has(self, name: str) -> bool:
        """Tell whether the request has a header."""
        return any(key == name.lower() for key, _ in self.headers)

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer kept under its idempotency key, with the digest of the request."""

    digest: bytes
    answer: Answer


class Space:
    """What one test sees of the server; made by ``APIServer.space``."""

    def __init__(self, *, token: str, origin: str, secure_origin: str) -> None:
        self.token = token
        self.origin = origin
        self.secure_origin = secure_origin
        self.requests: list[Recorded] = []
        # How many requests were carried out, rather than refused or replayed from a stored answer.
        self.executed = 0
        # Set by tests: what the model says instead of repeating, and what the account may.
        self.reply: str | None = None
        self.has_credits = True
        self.requests_per_minute = 1000
        self._ahead = 0.0
        self._used: dict[tuple[str, str], tuple[float, int]] = {}
        self._stored: dict[tuple[str, str], Stored] = {}
        self._steps: deque[Step] = deque()
        self._default = normal()
        self._identities = 0
        self._connections: set[Connection] = set()
        self._changed = threading.Condition()

    # What tests use.

    @property
    def key(self) -> str:
        """A key that every provider takes."""
        return f"anm_test_{self.token}"

    def url(self, provider: str, origin: str | None = None) -> str:
        """Return a provider's base URL, at another origin if so asked."""
        return f"{origin or self.origin}/{self.token}/{provider}{PROVIDERS[provider].base}"

    @property
    def animica(self) -> str:
        """Animica's base URL."""
        return self.url("animica")

    @property
    def andy(self) -> str:
        """Andy API's base URL; its pool's status is at ``../pool_status``."""
        return self.url("andy")

    @property
    def anannas(self) -> str:
        """Anannas' base URL."""
        return self.url("anannas")

    @property
    def anthropic(self) -> str:
        """Anthropic's base URL, to which clients add /v1/..."""
        return self.url("anthropic")

    def script(self, *steps: Step) -> None:
        """Have the next requests meet these steps, one each, and those after them none."""
        self._steps.extend(steps)

    def always(self, step: Step) -> None:
        """Have every request that the script leaves meet this step."""
        self._default = step

    @property
    def last(self) -> Recorded:
        """The newest request."""
        return self.requests[-1]

    @property
    def open_connections(self) -> int:
        """How many connections that brought requests here are open."""
        return sum(connection.is_open for connection in self._connections)

    def drop_connections(self) -> None:
        """Close the connections that are open, idle ones too, and return when they are."""
        for connection in list(self._connections):
            connection.close_soon()
        self.wait_for(lambda: self.open_connections == 0)

    def pass_time(self, seconds: float) -> None:
        """Let this time pass for the rate limits."""
        self._ahead += seconds

    def wait_for(self, condition: Callable[[], bool], *, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until what happens on the server makes a condition true."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError("the server did not come to that")

    # What the server uses, in its own thread.

    def next_step(self) -> Step:
        """Return what the next request meets."""
        return self._steps.popleft() if self._steps else self._default

    def identity(self, prefix: str) -> str:
        """Return a new identifier."""
        self._identities += 1
        return f"{prefix}{self.token}{self._identities:04}"

    def notify(self) -> None:
        """Wake those who wait for a condition."""
        with self._changed:
            self._changed.notify_all()

    def arrived(self, request: Recorded, connection: Connection) -> None:
        """Record a request."""
        self._connections.add(connection)
        connection.spaces.add(self)
        self.requests.append(request)
        self.notify()

    def answer(self, provider: Provider, request: Recorded) -> Answer:
        """Return what a provider answers to a request, with the headers of every answer."""
        request_id = self.identity("req_")
        quota = provider.quota(request, self)
        try:
            provider.admit(request)
            self._count(provider, quota)
            answer = self._once(provider, request)
        except Refusal as refusal:
            answer = provider.refuse(refusal, request_id)
        return answer.with_headers(*self.headers(provider, request, request_id))

    def headers(
        self, provider: Provider, request: Recorded, request_id: str
    ) -> Iterator[tuple[str, str]]:
        """Yield the headers that every answer has."""
        quota = provider.quota(request, self)
        used, reset = self._window(provider, quota)
        yield provider.request_id_header, request_id
        yield from provider.limit_headers(quota, max(quota.requests - used, 0), reset)

    def _window(self, provider: Provider, quota: Quota) -> tuple[int, float]:
        """Return how many requests a quota's current span has had, and the seconds left of it."""
        now = time.monotonic() + self._ahead
        began, used = self._used.get((provider.name, quota.name), (now, 0))
        if now - began >= quota.seconds:
            began, used = now, 0
        self._used[provider.name, quota.name] = began, used
        return used, began + quota.seconds - now

    def _count(self, provider: Provider, quota: Quota) -> None:
        used, reset = self._window(provider, quota)
        if used >= quota.requests:
            header = ("retry-after", str(math.ceil(reset)))
            raise Refusal(429, "Rate limit reached for requests.", headers=(header,))
        began, _ = self._used[provider.name, quota.name]
        self._used[provider.name, quota.name] = began, used + 1

    def _once(self, provider: Provider, request: Recorded) -> Answer:
        """Carry the request out, or replay the answer stored for its idempotency key.

        Animica's document promises the replay; that another request with the same key is 422 is
        https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/, section 2.7.
        """
        key = request.header("idempotency-key", "") if request.method == "POST" else ""
        digest = hashlib.sha256(request.path.encode() + b"\0" + request.body).digest()
        stored = self._stored.get((provider.name, key)) if key else None
        if stored is not None:
            if stored.digest != digest:
                message = "This idempotency key was used with another request."
                raise Refusal(422, message, code="idempotency_key_reused")
            return stored.answer.with_headers(("idempotent-replayed", "true"))
        answer = provider.respond(request, self)
        if request.method == "POST":
            self.executed += 1
        if key:
            self._stored[provider.name, key] = Stored(digest, replace(answer))
        return answer
