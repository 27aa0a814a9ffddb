"""What requests to Anthropic's API are made of, as type checkers see it.

https://docs.anthropic.com/en/api/messages. What is newer than this package fits, too: as a mapping,
or as a keyword argument of the method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Required, TypeAlias, TypedDict

from animica_hooks.sdk.types.anthropic import ContentBlock


class CacheControlParam(TypedDict, total=False):
    """Ask for the prompt up to here to be cached; ``ttl`` is ``5m`` or ``1h``."""

    type: Required[Literal["ephemeral"]]
    ttl: Literal["5m", "1h"]


class TextBlockParam(TypedDict, total=False):
    """A text."""

    type: Required[Literal["text"]]
    text: Required[str]
    cache_control: CacheControlParam | None
    citations: Iterable[Mapping[str, object]] | None


class Base64SourceParam(TypedDict):
    """What an image or a document is, in base64."""

    type: Literal["base64"]
    media_type: str
    data: str


class URLSourceParam(TypedDict):
    """Where an image or a document is."""

    type: Literal["url"]
    url: str


class ImageBlockParam(TypedDict, total=False):
    """An image."""

    type: Required[Literal["image"]]
    source: Required[Base64SourceParam | URLSourceParam | Mapping[str, object]]
    cache_control: CacheControlParam | None


class DocumentBlockParam(TypedDict, total=False):
    """A document, such as a PDF."""

    type: Required[Literal["document"]]
    source: Required[Base64SourceParam | URLSourceParam | Mapping[str, object]]
    title: str | None
    context: str | None
    citations: Mapping[str, object] | None
    cache_control: CacheControlParam | None


class ThinkingBlockParam(TypedDict):
    """What the model thought in a turn before, as it came."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlockParam(TypedDict, total=False):
    """A tool's use in a turn before."""

    type: Required[Literal["tool_use"]]
    id: Required[str]
    name: Required[str]
    input: Required[Mapping[str, object]]
    cache_control: CacheControlParam | None


class ToolResultBlockParam(TypedDict, total=False):
    """What a tool brought; ``tool_use_id`` is the ``id`` of its use."""

    type: Required[Literal["tool_result"]]
    tool_use_id: Required[str]
    content: str | Iterable[TextBlockParam | ImageBlockParam | Mapping[str, object]]
    is_error: bool
    cache_control: CacheControlParam | None


ContentBlockParam: TypeAlias = (
    TextBlockParam
    | ImageBlockParam
    | DocumentBlockParam
    | ThinkingBlockParam
    | ToolUseBlockParam
    | ToolResultBlockParam
    | ContentBlock
    | Mapping[str, object]
)


class MessageParam(TypedDict):
    """A turn of the conversation. The content of an answer goes back as it came."""

    role: Literal["user", "assistant"]
    content: str | Iterable[ContentBlockParam]


class ToolParam(TypedDict, total=False):
    """A tool that the model may use; ``input_schema`` is a JSON schema."""

    name: Required[str]
    input_schema: Required[Mapping[str, object]]
    description: str
    cache_control: CacheControlParam | None


class ToolChoiceParam(TypedDict, total=False):
    """How the model is to use the tools; ``name`` is of ``tool``."""

    type: Required[Literal["auto", "any", "tool", "none"]]
    name: str
    disable_parallel_tool_use: bool


class ThinkingParam(TypedDict, total=False):
    """Whether the model thinks first, and with how many tokens at most."""

    type: Required[Literal["enabled", "disabled", "adaptive"]]
    budget_tokens: int


class MetadataParam(TypedDict, total=False):
    """Who asks: an id that says nothing of the person."""

    user_id: str | None


Turns: TypeAlias = Iterable[MessageParam]
System: TypeAlias = str | Iterable[TextBlockParam] | None
Tools: TypeAlias = Iterable[ToolParam | Mapping[str, Any]] | None
