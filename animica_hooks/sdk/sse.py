"""Server-sent events out of bytes, without I/O: feed it what arrives, in pieces of any size.

The rules are those of https://html.spec.whatwg.org/multipage/server-sent-events.html:
lines end with LF, CRLF or CR; a line that begins with a colon is a comment; ``data`` lines of one
event are joined with LF; one space after the colon is not part of the value; a byte order mark at
the start is dropped; an event without data is none. ``id`` and ``retry`` are for browsers, which
reconnect; no API here uses them.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from animica_hooks.errors import APIResponseError

MAX_EVENT_BYTES = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class NamedEvent(NamedTuple):
    """An event that has a name: the name and the data."""

    name: str
    data: bytes


# Nearly all events have no name: these are just their data.
Event: TypeAlias = bytes | NamedEvent


class Decoder:
    """Turns the bytes of one stream into its events."""

    __slots__ = ("_after_cr", "_begun", "_pieces", "_size")

    def __init__(self) -> None:
        # What has arrived of the event that is under way, and how much that is. Pieces are joined
        # when it ends: joining them on each arrival would take time square to its size.
        self._pieces: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._begun = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes.

        Raises:
            APIResponseError: an event has more than ``MAX_EVENT_BYTES``.
        """
        if not self._begun:
            data = self._without_mark(data)
        elif not (self._pieces or self._after_cr) and _is_one(data):
            return [data[6:-2]]
        if self._after_cr or b"\r" in data:
            data = self._with_plain_ends(data)
        if not data:
            return []
        pieces = self._pieces
        ends_here = b"\n\n" in data
        ends_between = pieces and data.startswith(b"\n") and pieces[-1].endswith(b"\n")
        if not ends_here and not ends_between:
            return self._keep(data)
        if pieces:
            data = b"".join([*pieces, data])
            pieces.clear()
        self._size = 0
        blocks = data.split(b"\n\n")
        if rest := blocks.pop():
            self._keep(rest)
        return [
            event
            for block in blocks
            if (
                # What nearly every event is: one line of data.
                event := block[6:]
                if block.startswith(b"data: ") and b"\n" not in block
                else _parse(block)
            )
            is not None
        ]

    def finish(self) -> Event | None:
        """Return the event that the stream's end cut off its blank line, if there is one."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        return _parse(rest)

    def _keep(self, data: bytes) -> list[Event]:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise APIResponseError("the stream has an event that does not end")
        return []

    def _without_mark(self, data: bytes) -> bytes:
        data = b"".join([*self._pieces, data])
        self._pieces.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            # It may become a mark: nothing can be told yet.
            self._pieces.append(data)
            return b""
        self._begun = True
        return data.removeprefix(_BOM)

    def _with_plain_ends(self, data: bytes) -> bytes:
        if self._after_cr and data:
            # The line was ended by the CR at the end of the last piece: its LF may follow.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _is_one(data: bytes) -> bool:
    """Tell whether this is one event of one line, as nearly every live event arrives."""
    return (
        data.startswith(b"data: ")
        and data.find(b"\n") == len(data) - 2
        and data.endswith(b"\n")
        and b"\r" not in data
    )


def _parse(block: bytes) -> Event | None:
    name, data = "", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    if not data:
        return None
    joined = b"\n".join(data)
    return NamedEvent(name, joined) if name else joined
