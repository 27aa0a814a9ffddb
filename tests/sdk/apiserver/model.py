"""The "model" behind all four APIs: it repeats what it was told, the same every time."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

_PIECE = re.compile(r"\s*(?:\w+|[^\w\s]+)|\s+$")


def pieces(text: str) -> list[str]:
    """Cut a text into its tokens: words and punctuation, with the space before them."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """Return how many tokens a text has: "Hello world!" has 3."""
    return len(pieces(text))


def text_of(content: Any) -> str:
    """Return the text of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def prompt_of(messages: list[dict[str, Any]]) -> str:
    """Return the text of all messages."""
    return "\n".join(text_of(message.get("content")) for message in messages)


@dataclass(frozen=True, slots=True)
class Written:
    """A generated text in its pieces, and why it ended: "end", "length" or a stop sequence."""

    pieces: list[str]
    ended: str
    stop: str | None = None

    @property
    def text(self) -> str:
        """The text, whole."""
        return "".join(self.pieces)


def write(text: str, *, limit: int | None, stop: list[str]) -> Written:
    """Write a text up to the first stop sequence and up to a number of tokens."""
    ended, found = "end", None
    for sequence in stop:
        if sequence and sequence in text:
            text, ended, found = text.partition(sequence)[0], "stop", sequence
    written = pieces(text)
    if limit is not None and len(written) > limit:
        return Written(written[:limit], "length")
    return Written(written, ended, found)


def arguments_for(text: str) -> str:
    """Return the arguments with which a tool is called."""
    return json.dumps({"text": text}, ensure_ascii=False)


def vector(text: str, size: int) -> list[float]:
    """Return a text's embedding: equal for equal texts, every component a multiple of 1/256."""
    # Such numbers are exact as 32-bit floats, so that base64 and JSON give the same.
    digest = hashlib.shake_128(text.encode()).digest(size)
    return [(byte - 128) / 256 for byte in digest]
