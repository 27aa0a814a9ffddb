"""What the events of Anthropic's streams mean, without I/O.

https://docs.anthropic.com/en/api/messages-streaming, .../api/streaming (of the older completions)

Rule 1: a ``ping`` is no item; an event of a kind that is not known is one.
Rule 2: what an event is says its name, or its ``type`` where a server leaves one of them out.
Rule 3: a message is whole with ``message_stop``, or once its stop reason has come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from animica_hooks.errors import APIResponseError
from animica_hooks.sdk.reader import Reader

if TYPE_CHECKING:
    from animica_hooks.sdk.sse import Event
    from animica_hooks.sdk.types.anthropic import Completion, MessageEvent

E = TypeVar("E", bound="MessageEvent | Completion")


class _EventReader(Reader[E]):
    """Reads events of one type; subclasses implement ``look``."""

    __slots__ = ("_decode", "_stopped")

    def __init__(self, decode: Callable[[bytes], E]) -> None:
        super().__init__()
        self._decode = decode
        self._stopped = False

    def take(self, event: Event) -> E | None:
        name, data = ("", event) if isinstance(event, bytes) else event
        if name == "ping":
            return None
        if name == "error":
            raise self.failure(data)
        try:
            item = self._decode(data)
        except ValueError:
            raise APIResponseError("the stream has an event that is not usable") from None
        kind = item.type
        if not kind:
            kind = item.type = name
        if kind == "ping":
            return None
        if kind == "error" or item.error is not None:
            raise self.failure(data)
        self.look(item)
        return item

    def look(self, item: E) -> None:
        """Note the text that an item brings, and whether it is the last."""
        raise NotImplementedError

    def note(self, text: object) -> None:
        """Note a piece of the text; of odd types, too."""
        if text and isinstance(text, str):
            self.pieces.append(text)

    def is_complete(self) -> bool:
        return self.ended or self._stopped


class MessageReader(_EventReader["MessageEvent"]):
    """Reads the events of a message."""

    __slots__ = ()

    def look(self, item: MessageEvent) -> None:
        match item.type:
            case "content_block_delta":
                self.note(item.delta.text)
            case "content_block_start" if item.content_block is not None:
                self.note(item.content_block.text)
            case "message_delta":
                self._stopped = self._stopped or item.delta.stop_reason is not None
            case "message_stop":
                self.ended = True
            case _:
                pass


class CompletionReader(_EventReader["Completion"]):
    """Reads the increments of a completion."""

    __slots__ = ()

    def look(self, item: Completion) -> None:
        self.note(item.completion)
        self._stopped = self._stopped or item.stop_reason is not None
