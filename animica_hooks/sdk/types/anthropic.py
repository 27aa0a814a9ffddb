"""Answers of Anthropic's API.

https://docs.anthropic.com/en/api/messages, .../messages-streaming, .../complete

Blocks, events and deltas are of one class each, whose ``type`` says which of the fields are set: a
kind that is newer than this package is read like the others, with its fields as attributes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from animica_hooks.sdk.model import Model, Result


class CacheCreation(Model):
    """How many tokens were cached, by how long they are kept."""

    ephemeral_1h_input_tokens: int = 0
    ephemeral_5m_input_tokens: int = 0


class ServerToolUsage(Model):
    """How often the API's own tools were used."""

    web_search_requests: int = 0
    web_fetch_requests: int = 0


class Usage(Model):
    """How many tokens a message took."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    server_tool_use: ServerToolUsage | None = None
    service_tier: str | None = None

    _inner: ClassVar[tuple[str, ...]] = ("cache_creation", "server_tool_use")


class Citation(Model):
    """Where a part of a text is from; ``type`` says which fields are set, and how it counts.

    https://docs.anthropic.com/en/docs/build-with-claude/citations
    """

    type: str = ""
    cited_text: str = ""
    document_index: int | None = None
    document_title: str | None = None
    file_id: str | None = None
    start_char_index: int | None = None
    end_char_index: int | None = None
    start_page_number: int | None = None
    end_page_number: int | None = None
    start_block_index: int | None = None
    end_block_index: int | None = None
    url: str | None = None
    title: str | None = None
    encrypted_index: str | None = None


class ContentBlock(Model):
    """A part of a message.

    Attributes:
        type: ``text``, ``thinking``, ``redacted_thinking``, ``tool_use``, ...
        text: of ``text``.
        citations: of ``text``.
        thinking: of ``thinking``.
        signature: of ``thinking``: it goes back to the API as it came.
        data: of ``redacted_thinking``: likewise.
        id: of ``tool_use``, for the ``tool_use_id`` of its result.
        name: the tool that is used.
        input: what the tool is given.
        partial_json: of a ``tool_use`` whose stream ended within its input: that, as far as it
            came.
    """

    type: str = ""
    text: str | None = None
    citations: list[Citation] | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    partial_json: str | None = None

    _inner: ClassVar[tuple[str, ...]] = ("citations",)


class Message(Result):
    """An answer of ``messages``."""

    id: str = ""
    type: str = ""
    role: str = ""
    model: str = ""
    content: list[ContentBlock] = field(default_factory=list)
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)

    _inner: ClassVar[tuple[str, ...]] = ("content", "usage")


class Delta(Model):
    """What an event adds to a block (``type`` says what), or to the message.

    Attributes:
        type: ``text_delta``, ``input_json_delta``, ``thinking_delta``, ``signature_delta``,
            ``citations_delta``, ...; empty in ``message_delta``.
        text: more of the text.
        partial_json: more of the JSON of a tool's input.
        thinking: more of the thinking.
        signature: the thinking's signature.
        citation: one more of the text's.
        stop_reason: of ``message_delta``.
        stop_sequence: of ``message_delta``.
    """

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Citation | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None

    _inner: ClassVar[tuple[str, ...]] = ("citation",)


class MessageEvent(Model):
    """An event of a streamed message.

    Attributes:
        type: ``message_start``, ``content_block_start``, ``content_block_delta``,
            ``content_block_stop``, ``message_delta``, ``message_stop``, or one that is newer.
        message: of ``message_start``: the message, still without content.
        index: of ``content_block_...``: the block's place in the content.
        content_block: of ``content_block_start``: the block, still empty.
        delta: of ``content_block_delta`` and ``message_delta``.
        usage: of ``message_delta``: what the message took so far.
        error: of an event that is raised instead.
    """

    type: str = ""
    message: Message | None = None
    index: int | None = None
    content_block: ContentBlock | None = None
    delta: Delta = field(default_factory=Delta)
    usage: Usage | None = None
    error: Any = None

    _inner: ClassVar[tuple[str, ...]] = ("message", "content_block", "delta", "usage")


class MessageTokensCount(Result):
    """An answer of ``messages/count_tokens``."""

    input_tokens: int = 0


class Completion(Result):
    """An answer of the older ``complete``, or an increment of one that is streamed."""

    id: str = ""
    type: str = ""
    completion: str = ""
    model: str = ""
    stop_reason: str | None = None
    stop: str | None = None
    log_id: str | None = None
    error: Any = None
