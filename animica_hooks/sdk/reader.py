"""What the events of a stream mean, without I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from animica_hooks.errors import APIError, APIResponseError, StreamInterrupted

if TYPE_CHECKING:
    from animica_hooks.sdk.sse import Event

C = TypeVar("C")

DONE = b"[DONE]"


class Reader(Generic[C]):
    """Reads one stream: events in, items out, and whether it came to its end.

    Subclasses implement ``take``; they note text as it comes, for the error of a stream that
    breaks off.

    Attributes:
        ended: the API has said that nothing more follows.
        key: the API's key, to be taken out of errors.
    """

    __slots__ = ("ended", "key", "pieces")

    def __init__(self) -> None:
        self.ended = False
        self.key: str | None = None
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def take(self, event: Event) -> C | None:
        """Return the item that an event brings; None where it brings none.

        Raises:
            APIError: the event tells an error, of the class that its status would have had.
            APIResponseError: the event is not what the API speaks.
        """
        raise NotImplementedError

    def is_complete(self) -> bool:
        """Tell whether the stream may end here."""
        return self.ended

    def finish(self) -> None:
        """Check that the stream did not end before its end.

        Raises:
            StreamInterrupted: it did.
        """
        if not self.is_complete():
            raise StreamInterrupted("the stream ended before its end")

    def failure(self, data: bytes) -> APIError:
        """Return the error that an event tells."""
        from animica_hooks.sdk.failures import from_event

        return from_event(data, key=self.key)


class ChunkReader(Reader[C]):
    """Reads the streams of OpenAI's API: chunks of JSON, then ``[DONE]``.

    A stream without ``[DONE]`` is complete when each choice that began has its finish reason.
    Subclasses implement ``look``.

    Args:
        decode: makes a chunk of an event's data; raises ValueError where that is not possible.
    """

    __slots__ = ("_begun", "_decode", "_finished")

    def __init__(self, decode: Callable[[bytes], C]) -> None:
        super().__init__()
        self._decode = decode
        self._begun: list[object] = []
        self._finished: list[object] = []

    def take(self, event: Event) -> C | None:
        if isinstance(event, bytes):
            data = event
        else:
            data = event.data
            if event.name == "error":
                raise self.failure(data)
        if data == DONE:
            self.ended = True
            return None
        try:
            chunk = self._decode(data)
        except ValueError:
            raise APIResponseError("the stream has an event that is not usable") from None
        if self.look(chunk) is not None:
            raise self.failure(data)
        return chunk

    def look(self, chunk: C) -> object:
        """Note what a chunk brings, and return the error that it tells instead, or None."""
        raise NotImplementedError

    def note(self, index: object, text: object, finish_reason: object) -> None:
        """Note what a chunk brings of one choice; of odd types, too."""
        if index not in self._begun:
            self._begun.append(index)
        if finish_reason is not None and index not in self._finished:
            self._finished.append(index)
        # The text of the first choice is the text.
        if text and not index and isinstance(text, str):
            self.pieces.append(text)

    def is_complete(self) -> bool:
        return self.ended or (bool(self._finished) and len(self._begun) == len(self._finished))


class PlainReader(ChunkReader[Any]):
    """Reads chunks as dicts, of chat or of text completions."""

    __slots__ = ()

    def look(self, chunk: dict[str, Any]) -> object:
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                delta = choice.get("delta")
                text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
                self.note(choice.get("index"), text, choice.get("finish_reason"))
        return chunk.get("error")
