"""What a provider answers, before it is put on the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"


def encode(payload: Any) -> bytes:
    """Encode JSON as the providers do: compact, UTF-8."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


class Event(NamedTuple):
    """A server-sent event; `data` that is no text is sent as JSON."""

    data: Any
    name: str | None = None

    def encode(self) -> bytes:
        """Return the event's block: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
        name = f"event: {self.name}\n".encode() if self.name else b""
        data = self.data.encode() if isinstance(self.data, str) else encode(self.data)
        return name + b"".join(b"data: " + line + b"\n" for line in data.split(b"\n")) + b"\n"


DONE = Event("[DONE]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers, and either one body or a stream of events."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    events: tuple[Event, ...] | None = None

    @classmethod
    def of(cls, payload: Any, *, status: int = 200) -> Answer:
        """Answer with JSON."""
        return cls(status, (("content-type", JSON),), body=encode(payload))

    @classmethod
    def stream(cls, events: list[Event]) -> Answer:
        """Answer with a stream of events."""
        headers = (("content-type", EVENT_STREAM), ("cache-control", "no-cache"))
        return cls(200, headers, events=tuple(events))

    @property
    def parts(self) -> list[bytes]:
        """The body in the pieces in which it is written."""
        return [self.body] if self.events is None else [event.encode() for event in self.events]

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        """Return the answer with these headers, which replace those of the same name."""
        names = {name for name, _ in headers}
        kept = tuple(header for header in self.headers if header[0] not in names)
        return replace(self, headers=(*kept, *headers))


class Refusal(Exception):
    """The request is answered with an error; without `type` it is the status's own."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        code: str | int | None = None,
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = headers
