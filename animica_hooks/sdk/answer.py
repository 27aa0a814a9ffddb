"""What an API answered: status and headers, and all of it for who asks for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

if TYPE_CHECKING:
    from animica_hooks.sdk.ratelimit import RateLimit

T = TypeVar("T")

_REQUEST_ID_HEADERS = ("x-request-id", "request-id")


@final
class Headers(Mapping[str, str]):
    """An answer's headers, by name in any case; several of one name are joined with a comma.

    Nothing is decoded or sorted before somebody looks.
    """

    __slots__ = ("_by_name", "_hidden", "_pairs")

    def __init__(self, pairs: list[tuple[str, str]] | list[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._by_name: dict[str, str] | None = None
        self._hidden: str | None = None

    def hide(self, secret: str | None) -> None:
        """Take a secret out of all values, should the API repeat it."""
        self._hidden = secret

    def _names(self) -> dict[str, str]:
        found = self._by_name
        if found is None:
            several: dict[str, list[str]] = {}
            for name, value in self._pairs:
                several.setdefault(_text(name).lower(), []).append(_text(value))
            found = {name: ", ".join(values) for name, values in several.items()}
            if self._hidden:
                found = {n: value.replace(self._hidden, "***") for n, value in found.items()}
            self._by_name = found
        return found

    def __getitem__(self, name: str) -> str:
        return self._names()[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        # Values may be secrets (cookies): a repr goes to logs.
        return f"Headers({sorted(self._names())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Headers, (list(self.without_cookies().items()),))

    def without_cookies(self) -> Headers:
        """Return what may be kept of these, and shown."""
        return Headers([(n, value) for n, value in self.items() if n != "set-cookie"])


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


@final
class Answer:
    """A whole answer, or the head of one whose body is still to come.

    Attributes:
        status: the HTTP status.
        headers: by name.
        content: the body; empty while it is streamed.
        retries: how many requests failed before this one.
    """

    __slots__ = ("content", "headers", "retries", "status")

    def __init__(self, status: int, headers: Headers, content: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self.retries = 0

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"

    @property
    def request_id(self) -> str | None:
        """The API's id of the request."""
        return next((self.headers[n] for n in _REQUEST_ID_HEADERS if n in self.headers), None)


class RawResponse(Generic[T]):
    """An answer as it came, and what it means once ``parse()`` is called.

    Attributes:
        status_code: the HTTP status.
        headers: by name, in any case.
        content: the body.
        retries_taken: how many requests failed before the one that was answered.
    """

    __slots__ = ("_answer", "_parse")

    def __init__(self, answer: Answer, parse: Callable[[Answer], T]) -> None:
        self._answer = answer
        self._parse = parse

    def __repr__(self) -> str:
        return f"<RawResponse {self.status_code} {self.request_id or ''}>"

    @property
    def status_code(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Headers:
        return self._answer.headers

    @property
    def content(self) -> bytes:
        return self._answer.content

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    @property
    def retries_taken(self) -> int:
        return self._answer.retries

    @property
    def request_id(self) -> str | None:
        """The API's id of the request."""
        return self._answer.request_id

    @property
    def rate_limit(self) -> RateLimit:
        """What the answer's headers say of the rate limits."""
        from animica_hooks.sdk.ratelimit import read

        return read(self.headers)

    def json(self) -> Any:
        """Return the body's JSON as plain objects.

        Raises:
            ValueError: it is not JSON.
        """
        from animica_hooks.sdk.codec import decode

        return decode(self.content)

    def parse(self) -> T:
        """Return what the method returns without ``with_raw_response``.

        Raises:
            APIResponseError: the answer is not usable.
        """
        return self._parse(self._answer)
