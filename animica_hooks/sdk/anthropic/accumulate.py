"""``messages.stream()``: events as they come, and the message that they add up to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from animica_hooks.errors import APIResponseError
from animica_hooks.sdk.accumulate import AccumulatedStream, AsyncAccumulatedStream
from animica_hooks.sdk.anthropic.endpoints import MESSAGES
from animica_hooks.sdk.endpoint import decoder
from animica_hooks.sdk.types.anthropic import ContentBlock, Delta, Message, MessageEvent, Usage

if TYPE_CHECKING:
    from animica_hooks.sdk.async_client import AsyncClient
    from animica_hooks.sdk.client import Client

_INPUT = "partial_json"
# The fields that deltas add to, in the order of how often.
_ADDED_TO = ("text", _INPUT, "thinking", "signature")


class _Block:
    """One content block, and the pieces that were added to it."""

    def __init__(self, start: dict[str, Any]) -> None:
        self._start = start
        self._pieces: dict[str, list[str]] = {}
        self._citations: list[dict[str, Any]] = []

    def add(self, delta: Delta) -> None:
        """Add what one event brings."""
        for name in _ADDED_TO:
            if isinstance(piece := getattr(delta, name), str):
                self._pieces.setdefault(name, []).append(piece)
                return
        if delta.citation is not None:
            self._citations.append(delta.citation.to_dict())
            return
        for name, piece in delta.extra.items():
            # What is newer, like what is known, adds to the field of its name.
            if isinstance(piece, str):
                self._pieces.setdefault(name, []).append(piece)

    def whole(self) -> dict[str, Any]:
        """Return the block as the API would have sent it at once."""
        block = dict(self._start)
        for name, pieces in self._pieces.items():
            before = block.get(name)
            block[name] = (before if isinstance(before, str) else "") + "".join(pieces)
        if self._citations:
            before = block.get("citations")
            block["citations"] = [*(before if isinstance(before, list) else ()), *self._citations]
        if _INPUT in self._pieces:
            block.update(_input(block.pop(_INPUT)))
        return block


def _input(text: str) -> dict[str, Any]:
    """Return what a tool is given; JSON that is not whole, as it is."""
    if not text.strip():
        return {}
    try:
        return {"input": json.loads(text)}
    except (ValueError, RecursionError):
        return {_INPUT: text}


class Accumulator:
    """Adds the events of a stream up, without I/O.

    It gathers what the API sent and types it at the end, so that a message that was streamed has
    all that one has that was not, fields that this package does not know included.
    """

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}

    def add(self, event: MessageEvent) -> str:
        """Add an event; return the text that it adds."""
        match event.type:
            case "content_block_delta":
                self._block(_place(event)).add(event.delta)
                return _text(event.delta)
            case "content_block_start" if event.content_block is not None:
                start = event.content_block
                self._blocks[_place(event)] = _Block(start.to_dict())
                return _text(start)
            case "message_start" if event.message is not None:
                self._message = event.message.to_dict()
                self._add_usage(event.message.usage)
            case "message_delta":
                self._message |= _given(event.delta)
                self._add_usage(event.usage)
            case _:
                pass
        return ""

    def _block(self, place: int) -> _Block:
        """Return a block; one that was never begun, by a server that leaves that out, is a text."""
        if place not in self._blocks:
            self._blocks[place] = _Block({"type": "text"})
        return self._blocks[place]

    def _add_usage(self, usage: Usage | None) -> None:
        """Take over what is counted: each time from the start, not what was added."""
        self._usage |= _given(usage) if usage is not None else {}

    def whole(self) -> Message:
        """Return what has come so far, as if it had not been streamed.

        Raises:
            APIResponseError: it is nested too deeply.
        """
        blocks = [block.whole() for _, block in sorted(self._blocks.items())]
        gathered = {**self._message, "content": blocks, "usage": self._usage}
        # Not by codec, which refuses what requests can not have: here it was sent, escaped.
        try:
            message: Message = decoder("anthropic.Message")(json.dumps(gathered).encode())
        except (ValueError, RecursionError):
            raise APIResponseError("the message is nested too deeply") from None
        return message

    def text(self) -> str:
        """Return the text so far."""
        return "".join(_text(block) for block in self.whole().content if block.type == "text")


def _place(event: MessageEvent) -> int:
    return event.index if isinstance(event.index, int) else 0


def _given(model: Delta | Usage) -> dict[str, Any]:
    """Return what an event says, without what it leaves as it was."""
    return {name: value for name, value in model.to_dict().items() if value is not None}


def _text(part: Delta | ContentBlock) -> str:
    return part.text if isinstance(part.text, str) else ""


class MessageStream(AccumulatedStream[Message, MessageEvent]):
    """The stream of a message, which adds up."""

    def __init__(self, client: Client, params: dict[str, Any]) -> None:
        super().__init__(client, MESSAGES, params, Accumulator())

    @property
    def usage(self) -> Usage:
        """How many tokens it took so far."""
        return self._sum.whole().usage

    @property
    def current_message_snapshot(self) -> Message:
        """What has come so far."""
        return self._whole()

    def get_final_message(self) -> Message:
        """Read what is left and return the message.

        Raises:
            APIError: the stream broke off.
        """
        self.until_done()
        return self._whole()


class AsyncMessageStream(AsyncAccumulatedStream[Message, MessageEvent]):
    """As ``MessageStream``, for coroutines."""

    def __init__(self, client: AsyncClient, params: dict[str, Any]) -> None:
        super().__init__(client, MESSAGES, params, Accumulator())

    @property
    def usage(self) -> Usage:
        """How many tokens it took so far."""
        return self._sum.whole().usage

    @property
    def current_message_snapshot(self) -> Message:
        """What has come so far."""
        return self._whole()

    async def get_final_message(self) -> Message:
        """As ``MessageStream.get_final_message``."""
        await self.until_done()
        return self._whole()
